"""Where a slot's arguments and result lie: calling conventions resolved to registers and stack words.

i386: gcc's ``-mregparm=3`` as the kernel is built; an argument of two words takes two registers or, if there
    are not two left, lies on
the stack with all that follow (config/i386, function_arg). A caller finds a stack argument above the return
address. Small structs (a PAE pte_t) travel as integers of their width, results of two words in edx:eax
(asm-i386/paravirt.h, the notes above __PVOP_CALL). On i386 a callee-save thunk saves ecx only
(asm/paravirt.h, PV_SAVE_ALL_CALLER_REGS).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

import attrs

from pvops_core.ops.model import Convention, Op, Slot

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind

ARGUMENTS = {32: ("eax", "edx", "ecx"), 64: ("rdi", "rsi", "rdx", "rcx", "r8", "r9")}
RESULT = {32: ("eax", "edx"), 64: ("rax", "rdx")}
CALLER_SAVED = {
    32: frozenset({"eax", "ecx", "edx"}),
    64: frozenset({"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"}),
}
_CALLEE_SAVE_LOST = {32: frozenset({"eax", "edx"}), 64: frozenset({"rax"})}


@attrs.frozen
class Place:
    """Where one argument lies when the slot's code begins.

    Attributes:
        name: the argument's name.
        registers: registers that hold it, low word first; empty if it is on the stack.
        stack: offset from the stack pointer in bytes (the return address is at 0); None if in registers.
        bits: its width.
        signed: whether the value is sign-extended.
        shift: its lowest bit in what the registers hold; not 0 only in a view of half an argument.
        piece: bits that each register holds of it; 0 for all that the register has.
    """

    name: str
    registers: tuple[str, ...]
    stack: int | None
    bits: int
    signed: bool
    shift: int = 0
    piece: int = 0

    def value(self, words: Sequence[int], word_bits: int) -> int:
        """The argument as a Python integer, of the words that hold it, low word first."""
        raw, step = 0, self.piece or word_bits
        for number, word in enumerate(words):
            raw |= (word & (1 << step) - 1) << (number * step)
        raw = raw >> self.shift & (1 << self.bits) - 1
        return raw - (1 << self.bits) if self.signed and raw >> (self.bits - 1) else raw


@attrs.frozen
class Signature:
    """How a slot is called on one kind of machine.

    Attributes:
        op: the op.
        kind: the machine.
        places: the arguments in C order.
        registers: every register to read to have the arguments, without repeats: one batch per slot.
        stack_words: words of the stack above the return address that hold arguments.
        result: registers that take the result, low word first; empty for a void function.
        result_bits: width of the result; 0 for a void function.
        clobbers: registers that the callee may change, those of the result among them.
        views: what hooks know arguments by that other generations pass in another shape; see :func:`_views`.
    """

    op: Op
    kind: MachineKind
    places: tuple[Place, ...]
    registers: tuple[str, ...]
    stack_words: int
    result: tuple[str, ...]
    result_bits: int
    clobbers: frozenset[str]
    views: tuple[Place, ...] = ()

    def arguments(self, registers: Sequence[int], stack: Sequence[int] = ()) -> tuple[int, ...]:
        """The arguments in C order.

        Args:
            registers: values of ``self.registers``, in that order.
            stack: the ``self.stack_words`` words above the return address.
        """
        return self._values(self.places, registers, stack)

    def arguments_and_views(self, registers: Sequence[int], stack: Sequence[int] = ()) -> tuple[int, ...]:
        """The arguments in C order, and then the views; see :meth:`arguments`."""
        return self._values((*self.places, *self.views), registers, stack)

    def _values(self, places: Sequence[Place], registers: Sequence[int], stack: Sequence[int]) -> tuple[int, ...]:
        size = self.kind.pointer_size
        held = dict(zip(self.registers, registers, strict=True))
        values = []
        for place in places:
            if place.stack is None:
                words = [held[register] for register in place.registers]
            else:
                first = place.stack // size - 1
                words = list(stack[first : first + _words(place.bits, self.kind)])
            values.append(place.value(words, self.kind.bits))
        return tuple(values)

    def results(self, value: int) -> tuple[int, ...]:
        """What to put into the registers of ``self.result``: the value cut to its width, in words."""
        value &= (1 << self.result_bits) - 1
        mask = (1 << self.kind.bits) - 1
        return tuple((value >> (number * self.kind.bits)) & mask for number in range(len(self.result)))


def _words(bits: int, kind: MachineKind) -> int:
    return -(-bits // kind.bits)


def _places(op: Op, kind: MachineKind) -> Iterator[Place]:
    free = list(ARGUMENTS[kind.bits])
    stack = kind.pointer_size
    for arg in op.args:
        bits = arg.bits(kind)
        words = _words(bits, kind)
        if words <= len(free):
            taken, free = tuple(free[:words]), free[words:]
            yield Place(arg.name, taken, None, bits, arg.ctype.signed)
        else:
            free = []
            yield Place(arg.name, (), stack, bits, arg.ctype.signed)
            stack += words * kind.pointer_size


def _views(op: Op, places: Sequence[Place]) -> tuple[Place, ...]:
    """What a write of an MSR has under the other generation's names: two halves up to 6.15, one u64 since."""
    if op.name not in {"write_msr", "write_msr_safe"}:
        return ()
    by_name = {place.name: place for place in places}
    if "val" in by_name:
        halves = (("low", 0), ("high", 32))
        return tuple(attrs.evolve(by_name["val"], name=name, bits=32, shift=shift) for name, shift in halves)
    if not {"low", "high"} <= by_name.keys():
        return ()
    registers = by_name["low"].registers + by_name["high"].registers
    return (Place("val", registers, None, 64, signed=False, piece=32),)


def _clobbers(op: Op, kind: MachineKind) -> frozenset[str]:
    match op.convention:
        case Convention.JUMP | Convention.NONE:
            return frozenset()
        case Convention.CALLEE_SAVE:
            return _CALLEE_SAVE_LOST[kind.bits]
        case _:
            return CALLER_SAVED[kind.bits]


@cache
def signature(what: Op | Slot, kind: MachineKind) -> Signature:
    """Resolve an op's calling convention on a kind of machine.

    Args:
        what: the op, or the slot that holds it.
        kind: the machine; widths of page-table entries and pointers follow it.
    """
    op = what.op if isinstance(what, Slot) else what
    places = tuple(_places(op, kind))
    on_stack = [place for place in places if place.stack is not None]
    bits = 0 if op.result is None or op.is_data else op.result.bits(kind)
    return Signature(
        op=op,
        kind=kind,
        places=places,
        registers=tuple(register for place in places for register in place.registers),
        stack_words=sum(_words(place.bits, kind) for place in on_stack),
        result=RESULT[kind.bits][: _words(bits, kind)],
        result_bits=bits,
        clobbers=_clobbers(op, kind),
        views=_views(op, places),
    )
