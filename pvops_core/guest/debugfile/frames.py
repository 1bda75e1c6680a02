""".debug_frame of a kernel, made of its ORC: where each place's caller goes on, for debuggers that know DWARF alone.

ORC tells less: of the caller's registers the stack pointer and rbp, where a call was made. The others are said to be
lost, as they are. Source of what an entry means: unwind_next_frame of arch/x86/kernel/unwind_orc.c; of what lies in
``struct pt_regs``: arch/x86/include/asm/ptrace.h.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.guest.debugfile import cfi
from pvops_core.guest.stacks.orc import Base, OrcKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pvops_core.guest.stacks.orc import Orc, OrcEntry

_REGISTERS: Final = {
    Base.AX: cfi.RAX,
    Base.DX: cfi.RDX,
    Base.DI: cfi.RDI,
    Base.R10: cfi.R10,
    Base.R13: cfi.R13,
}
"""Those that a stack may be reckoned from without an offset."""
_PUSHED: Final = (
    *(cfi.R15, cfi.R14, cfi.R13, cfi.R12, cfi.RBP, cfi.RBX, cfi.R11, cfi.R10, cfi.R9, cfi.R8),
    *(cfi.RAX, cfi.RCX, cfi.RDX, cfi.RSI, cfi.RDI),
)
"""The registers at the beginning of struct pt_regs, a word each."""
_TAKEN: Final = (cfi.RETURN, cfi.CS, cfi.FLAGS, cfi.RSP, cfi.SS)
"""What iret takes, a word each."""
_IRET_FRAME: Final = 128
"""Where that lies in struct pt_regs: behind orig_ax."""
_WORD: Final = 8
_NO_CALLER: Final = cfi.lost(cfi.RETURN)


class _Common(NamedTuple):
    """What one entry says of a whole range of text."""

    kind: OrcKind
    interrupted: bool


class _Rules(NamedTuple):
    """What holds from a place on."""

    common: _Common
    frame: bytes
    rbp: bytes
    caller: bytes


_Rows = list[tuple[int, _Rules]]
"""Places, each with what holds from there on."""


def debug_frame(orc: Orc, functions: Iterable[tuple[int, int]], offset: int = 0) -> tuple[bytes, int]:
    """The section's bytes, and how many ranges of text they tell of.

    Args:
        orc: the kernel's tables.
        functions: where each begins and ends, ascending, none in another.
        offset: how much further on the kernel is than it was linked to be.
    """
    made, count = bytearray(), 0
    commons: dict[_Common, int] = {}
    for end, rows in _ranges(orc, functions):
        start, common = rows[0][0], rows[0][1].common
        if common not in commons:
            commons[common] = len(made)
            made += cfi.common_entry(_at_start(common), interrupted=common.interrupted)
        place = commons[common], start + offset, end - start
        made += cfi.function_entry(*place, _instructions(rows), interrupted=common.interrupted)
        count += 1
    return bytes(made), count


def _ranges(orc: Orc, functions: Iterable[tuple[int, int]]) -> Iterator[tuple[int, _Rows]]:
    """The end and the rows of each range, in order."""
    changes = chain(orc.changes(), [(1 << 64, None)])
    here = None
    at, following = next(changes)
    for start, end in functions:
        while at <= start:
            here = following
            at, following = next(changes)
        rows = [(start, _rules(here))]
        while at < end:
            here = following
            rows.append((at, _rules(here)))
            at, following = next(changes)
        yield from _parted(rows, end)


def _parted(rows: Sequence[tuple[int, _Rules | None]], end: int) -> Iterator[tuple[int, _Rows]]:
    """The rows of a function by what they have in common."""
    while rows and rows[-1][1] is None:  # padding behind its last instruction, or all of it
        end, rows = rows[-1][0], rows[:-1]
    part: _Rows = []
    for place, rules in rows:
        # Of a place that nothing is known of no caller can be shown.
        known = rules or (part[-1][1] if part else _start(OrcKind.CALL))._replace(caller=_NO_CALLER)
        if part and known.common != part[0][1].common:
            yield place, part
            part = []
        part.append((place, known))
    if part:
        yield end, part


def _instructions(rows: _Rows) -> bytes:
    """The rows of a range, each by what is otherwise than before."""
    made, (at, first) = bytearray(), rows[0]
    before = _start(*first.common)
    for place, rules in rows:
        changed = b"".join(new for new, old in zip(rules[1:], before[1:], strict=True) if new != old)
        if changed:
            made += cfi.advance(place - at) if place != at else b""
            made += changed
            at, before = place, rules
    return bytes(made)


@cache
def _start(kind: OrcKind, interrupted: bool = False) -> _Rules:  # noqa: FBT001, FBT002 - the parts of a tuple
    """What holds where nothing else is said: a function has just been called, or registers have just been saved."""
    common = _Common(kind, interrupted)
    if kind is OrcKind.CALL:
        return _Rules(common, cfi.frame_at(cfi.RSP, _WORD), cfi.same(cfi.RBP), cfi.saved(cfi.RETURN, -_WORD))
    if kind is OrcKind.PARTIAL:
        return _Rules(common, cfi.frame_at(cfi.RSP, 0), cfi.same(cfi.RBP), cfi.saved(cfi.RETURN, 0))
    rbp = cfi.saved(cfi.RBP, _PUSHED.index(cfi.RBP) * _WORD)
    return _Rules(common, cfi.frame_at(cfi.RSP, 0), rbp, cfi.saved(cfi.RETURN, _IRET_FRAME))


def _at_start(common: _Common) -> bytes:
    """The same as instructions, those of all other registers with them."""
    start = _start(*common)
    told = {cfi.RBP: start.rbp, cfi.RETURN: start.caller}
    whole = common.kind is OrcKind.REGS
    if common.kind is not OrcKind.CALL:
        base = _IRET_FRAME if whole else 0
        told = {each: cfi.saved(each, base + number * _WORD) for number, each in enumerate(_TAKEN)} | told
    for number, each in enumerate(_PUSHED):
        told.setdefault(each, cfi.saved(each, number * _WORD) if whole else cfi.lost(each))
    return start.frame + b"".join(told[each] for each in sorted(told))


@cache
def _rules(entry: OrcEntry | None) -> _Rules | None:
    """What an entry says; None where that is nothing."""
    if entry is None:
        return None
    if entry.kind is OrcKind.END:
        return _start(OrcKind.CALL)._replace(caller=_NO_CALLER)
    start = _start(entry.kind, entry.interrupted)
    frame = _frame(entry)
    rbp = start.rbp if entry.bp_base is Base.UNDEFINED else _saved_rbp(entry)
    return start._replace(frame=frame, rbp=rbp) if frame and rbp else None


def _frame(entry: OrcEntry) -> bytes:
    match entry.sp_base:
        case Base.SP:
            return cfi.frame_at(cfi.RSP, entry.sp_offset)
        case Base.BP:
            return cfi.frame_at(cfi.RBP, entry.sp_offset)
        case Base.SP_INDIRECT:
            return cfi.frame_of(cfi.address_at(cfi.RSP, 0) + cfi.load() + cfi.plus(entry.sp_offset))
        case Base.BP_INDIRECT:
            return cfi.frame_of(cfi.address_at(cfi.RBP, entry.sp_offset) + cfi.load())
    register = _REGISTERS.get(entry.sp_base)
    return cfi.frame_at(register, 0) if register is not None else b""


def _saved_rbp(entry: OrcEntry) -> bytes:
    match entry.bp_base:
        case Base.PREV_SP if entry.bp_offset % _WORD == 0:
            return cfi.saved(cfi.RBP, entry.bp_offset)
        case Base.BP:
            return cfi.saved_at(cfi.RBP, cfi.address_at(cfi.RBP, entry.bp_offset))
    return b""
