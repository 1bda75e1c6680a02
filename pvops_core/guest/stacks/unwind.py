"""Walks a stack by ORC, from frame to frame: through interrupts and exceptions to what they interrupted, on any stack.

Source of the rules: unwind_next_frame of arch/x86/kernel/unwind_orc.c; pt_regs of arch/x86/include/asm/ptrace.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import MemoryAccessError
from pvops_core.guest.stacks.orc import Base, OrcKind
from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from pvops_core.guest.stacks.orc import Orc, OrcEntry

_WORD: Final = 8
_MASK: Final = (1 << 64) - 1
_MOST_FRAMES: Final = 400
# Behind the sixteen words of struct pt_regs that iret does not take.
_IRET_FRAME: Final = 128
_SAVED: Final = {"r13": 16, "bp": 32, "r10": 56, "ax": 80, "dx": 96, "di": 112, "ip": 128, "cs": 136, "sp": 152}
"""Offsets in struct pt_regs."""
_REGISTERS: Final = {Base.R10: "r10", Base.R13: "r13", Base.DI: "di", Base.DX: "dx", Base.AX: "ax"}


class LostError(Exception):
    """The tables do not say how to go on."""


@attrs.define
class Frame:
    """Where a walk is.

    Attributes:
        ip: where that frame goes on.
        sp: its stack pointer there.
        bp: its frame pointer, which may be any value.
        exact: it was interrupted at ``ip``; else ``ip`` is a return address.
        registers: its other registers by name, of one that was interrupted; saved ones at an address of the stack.
    """

    ip: int
    sp: int
    bp: int
    exact: bool
    registers: Callable[[str], int] | None = None


@attrs.frozen
class Walked:
    """A walk.

    Attributes:
        places: where each frame goes on, the innermost first.
        sp: stack pointer of the last frame.
        lost: nobody knows how to go on from there; else it is the first.
    """

    places: tuple[int, ...]
    sp: int
    lost: bool


def walk(orc: Orc, frame: Frame, word: Callable[[int], int], called: Callable[[int], bool]) -> Walked:
    """Every place at which a stack's frames go on.

    Args:
        orc: the kernel's tables.
        frame: the innermost.
        word: a word of the stack; GuestFault if it is not mapped.
        called: whether a place is one that has just been called, though the tables do not know it: a hook's entry.
    """
    places = [frame.ip]
    # Bounded: damaged tables may go in circles.
    while len(places) < _MOST_FRAMES:
        try:
            if not _to_caller(orc, frame, word, called):
                return Walked(tuple(places), frame.sp, lost=False)
        except (LostError, GuestFault, MemoryAccessError):
            break
        places.append(frame.ip)
    return Walked(tuple(places), frame.sp, lost=True)


def _to_caller(orc: Orc, frame: Frame, word: Callable[[int], int], called: Callable[[int], bool]) -> bool:
    """Go on to the caller's frame, or the interrupted one; False if there is none in the kernel."""
    # At the first instruction of a function nothing is pushed yet but the return address.
    if called(frame.ip):
        frame.ip, frame.sp, frame.exact, frame.registers = word(frame.sp), frame.sp + _WORD, False, None
        return True
    # A return address lies behind its call, which may be a function's last instruction.
    entry = orc.find(frame.ip if frame.exact else frame.ip - 1)
    if entry is None:
        raise LostError
    if entry.kind is OrcKind.END:
        if frame.exact:  # code that has no frame, as xen_iret: what it returns to lies there all the same
            raise LostError
        # A first frame that was come to by a return: there is no caller in the kernel.
        return False
    stack = _caller_stack(entry, frame, word)
    bp = _caller_bp(entry, frame, stack, word)
    if entry.kind is OrcKind.CALL:
        frame.ip, frame.sp, frame.exact, frame.registers = word(stack - _WORD), stack, False, None
    else:
        base = stack if entry.kind is OrcKind.REGS else stack - _IRET_FRAME
        # User mode: the kernel's stack ends here.
        if word(base + _SAVED["cs"]) & 3 == 3:
            return False
        if entry.kind is OrcKind.REGS:  # of which five words alone are there, the others are as they were
            frame.registers = lambda name: word(base + _SAVED[name])
        frame.ip, frame.sp, frame.exact = word(base + _SAVED["ip"]), word(base + _SAVED["sp"]), entry.interrupted
    # Last: the caller's stack was reckoned by the old one.
    frame.bp = bp
    return True


def _caller_stack(entry: OrcEntry, frame: Frame, word: Callable[[int], int]) -> int:
    match entry.sp_base:
        case Base.SP:
            stack = frame.sp + entry.sp_offset
        case Base.BP:
            stack = frame.bp + entry.sp_offset
        case Base.BP_INDIRECT:
            stack = word(frame.bp + entry.sp_offset & _MASK)
        case Base.SP_INDIRECT:
            stack = word(frame.sp) + entry.sp_offset
        case Base.R10 | Base.R13 | Base.DI | Base.DX | Base.AX:
            if frame.registers is None:
                raise LostError
            stack = frame.registers(_REGISTERS[entry.sp_base])
        case _:
            raise LostError
    return stack & _MASK


def _caller_bp(entry: OrcEntry, frame: Frame, stack: int, word: Callable[[int], int]) -> int:
    match entry.bp_base:
        case Base.UNDEFINED if entry.kind is OrcKind.REGS:
            return word(stack + _SAVED["bp"])
        case Base.UNDEFINED:
            return frame.bp
        case Base.PREV_SP:
            return word(stack + entry.bp_offset & _MASK)
        case Base.BP:
            return word(frame.bp + entry.bp_offset & _MASK)
        case _:
            raise LostError
