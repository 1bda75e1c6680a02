"""Counts how often spans of guest text are executed, and the virtual time until the code behind each goes on.

A native callback at every block of code looks whether spans begin in the block. A span that reaches to the block's end,
as a call does, is under way from then on, until a block begins inside it or right behind it: where the call returns to.
So the time is of everything that happened meanwhile. What is in the middle of a block (inlined code) takes no time.

It costs nothing while there is none, some nanoseconds a block while there is. It is no part of snapshots.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from llvmlite import ir

from pvops_core.errors import MachineError
from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn.llvm.emit import assembled
from pvops_core.machine.unicorn.llvm.routines import placed
from pvops_core.machine.unicorn.state import BLOCK_NS, StateWord

if TYPE_CHECKING:
    from numpy.typing import NDArray


_NAME: Final = "spans"
_LINE_SHIFT: Final = 6
_LINE: Final = 1 << _LINE_SHIFT
_DEEPEST: Final = 64
"""Spans under way at a time on one vCPU; a new one takes the place of the oldest beyond that."""
_END: Final = (1 << 63) - 1
# Places in the words of one vCPU.
_STATE, _BASE, _SIZE, _LINES, _STARTS, _ENDS, _COUNTS, _TIMES, _DEPTH, _FLIGHTS, _FIRST, _LAST = range(12)
_VOID, _I32, _I64 = ir.VoidType(), ir.IntType(32), ir.IntType(64)
Value = Any  # llvmlite has no types


class Numbered(Protocol):
    """A vCPU by its number."""

    @property
    def index(self) -> int:
        """Its place among the slots."""


class Counted(Protocol):
    """A vCPU with its engine and the words that it shares with native callbacks."""

    engine: uc.Engine
    state: uc.Words


class SpanCounter:
    """Counts executions of spans on every vCPU, from when it is made until it is closed.

    Args:
        slots: the vCPUs.
        spans: guest-virtual address and length of each; they do not overlap.

    Raises:
        MachineError: there are none, or two overlap.
    """

    def __init__(self, slots: Sequence[Counted], spans: Sequence[tuple[int, int]]) -> None:
        if not spans:
            raise MachineError("no spans to count")
        # Searched by bisection, and counted by place: order is not the caller's.
        self._order = sorted(range(len(spans)), key=lambda number: spans[number])
        starts = np.array([_signed(spans[number][0]) for number in self._order] + [_END], "<i8")
        ends = np.array([_signed(sum(spans[number])) for number in self._order] + [_END], "<i8")
        # Two spans at once would both claim the time.
        if (ends[:-2] > starts[1:-1]).any():
            raise MachineError("spans to count overlap")
        self._starts, self._ends = starts, ends
        self._cpus = [_Cpu(slot, starts, ends) for slot in slots]

    def _sum(self, arrays: Sequence[NDArray[np.int64]]) -> list[int]:
        total = np.sum(arrays, axis=0)
        result = [0] * len(self._order)
        for place, number in enumerate(self._order):
            result[number] = int(total[place])
        return result

    @property
    def counts(self) -> list[int]:
        """How often each span was executed, in the order given."""
        return self._sum([cpu.counts for cpu in self._cpus])

    @property
    def times(self) -> list[int]:
        """Virtual nanoseconds from each span's executions to where the code behind it went on."""
        return self._sum([cpu.times for cpu in self._cpus])

    def interrupted(self, vcpu: Numbered, rip: int) -> None:
        """An exception at ``rip`` broke off a block: what of it comes there or later was not executed."""
        self._cpus[vcpu.index].interrupted(_signed(rip), self._starts)

    def close(self) -> None:
        """Count no more."""
        for cpu in self._cpus:
            cpu.close()


class _Cpu:
    """The counter's part of one vCPU."""

    def __init__(self, slot: Counted, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self.counts = np.zeros(len(starts), "<i8")
        self.times = np.zeros(len(starts), "<i8")
        self._flights = np.zeros(2 * _DEEPEST, "<i8")
        base = int(starts[0]) & -_LINE
        # A line is where a block may begin: which span is looked at first is known without searching.
        lines = np.arange(base, int(ends[-2]) + 2 * _LINE, _LINE, dtype="<i8")
        # The first span that is not over before the line begins.
        self._lines = np.searchsorted(ends, lines, side="left").astype("<i4")
        self._arrays = (starts, ends)
        self._words = np.zeros(12, "<i8")
        addresses = {_LINES: self._lines, _STARTS: starts, _ENDS: ends, _COUNTS: self.counts, _TIMES: self.times}
        for place, array in (addresses | {_FLIGHTS: self._flights}).items():
            self._words[place] = array.ctypes.data
        self._words[_STATE] = ctypes.addressof(slot.state)
        self._words[_BASE], self._words[_SIZE] = base, len(lines) * _LINE
        self._engine = slot.engine
        # Spans are counted in blocks translated from now on.
        self._hook = self._engine.hook_native(uc.HOOK_BLOCK, _callback(), self._words.ctypes.data)
        self._engine.flush_code()

    def interrupted(self, rip: int, starts: NDArray[np.int64]) -> None:
        first, last = int(self._words[_FIRST]), int(self._words[_LAST])
        if not first <= rip < last:
            # A block that was broken off counted spans that it never came to.
            return
        begin, end = np.searchsorted(starts, [rip, last])
        for number in range(int(begin), int(end)):
            self.counts[number] -= 1
            depth = int(self._words[_DEPTH])
            if depth and self._flights[2 * depth - 2] == number:
                self._words[_DEPTH] = depth - 1
        self._words[_LAST] = rip

    def close(self) -> None:
        # An engine that is closed takes its hooks with it.
        if not self._engine.closed:
            self._engine.unhook(self._hook)
            self._engine.flush_code()


def _signed(address: int) -> int:
    # Native code compares signed words; order within a half of the address space stays
    return address - (1 << 64) if address >> 63 else address


@functools.cache
def _callback() -> int:
    """``void spans(uc_engine *, uint64_t address, uint32_t size, int64_t *words)``."""
    return placed(_NAME, {_NAME}, lambda: assembled(_module()))[_NAME]


class _Writer:
    """Writes the callback."""

    def __init__(self, function: Value) -> None:
        _engine, self.address, size, self._words = function.args
        self.function = function
        self.at = ir.IRBuilder(function.append_basic_block("entry"))
        self.end = self.at.add(self.address, self.at.zext(size, _I64))

    def word(self, place: int) -> Value:
        return self.at.gep(self._words, [_I64(place)])

    def get(self, place: int) -> Value:
        return self.at.load(self.word(place))

    def item(self, place: int, index: Value, kind: Value = _I64) -> Value:
        """A pointer to an element of the array whose address is in a word."""
        return self.at.gep(self.at.inttoptr(self.get(place), kind.as_pointer()), [index])

    def state(self, slot: StateWord) -> Value:
        """A word of the vCPU's own."""
        return self.at.load(self.item(_STATE, _I64(int(slot))))

    def add(self, pointer: Value, value: Value) -> None:
        self.at.store(self.at.add(self.at.load(pointer), value), pointer)

    def now(self) -> Value:
        blocks = self.at.sub(self.state(StateWord.ALLOWED), self.state(StateWord.BUDGET))
        return self.at.add(self.state(StateWord.CLOCK), self.at.mul(blocks, _I64(BLOCK_NS)))

    def block(self, name: str) -> Value:
        return self.function.append_basic_block(name)


def _module() -> ir.Module:
    module = ir.Module(name=_NAME)
    kind = ir.FunctionType(_VOID, [_I64, _I64, _I32, _I64.as_pointer()])
    to = _Writer(ir.Function(module, kind, name=_NAME))
    at = to.at
    inside, loop, body, over = (to.block(name) for name in ("inside", "loop", "body", "over"))
    offset = at.sub(to.address, to.get(_BASE))
    near = at.icmp_unsigned("<", offset, to.get(_SIZE))
    runs = at.icmp_signed("==", to.state(StateWord.EXPIRED), _I64(0))  # else the block is not executed
    at.cbranch(at.and_(near, runs), inside, over)
    at.position_at_end(inside)
    at.store(to.address, to.word(_FIRST))
    at.store(to.end, to.word(_LAST))
    first = at.sext(at.load(to.item(_LINES, at.lshr(offset, _I64(_LINE_SHIFT)), _I32)), _I64)
    at.branch(loop)
    at.position_at_end(loop)
    number = at.phi(_I64)
    number.add_incoming(first, inside)
    start = at.load(to.item(_STARTS, number))
    at.cbranch(at.icmp_signed("<", start, to.end), body, over)
    at.position_at_end(body)
    end = at.load(to.item(_ENDS, number))
    with at.if_else(at.icmp_signed(">=", start, to.address)) as (begins, goes_on):
        with begins:
            to.add(to.item(_COUNTS, number), _I64(1))
            with at.if_then(at.icmp_signed(">=", end, to.end)):
                _set_out(to, number)
        with goes_on, at.if_then(at.icmp_signed(">=", end, to.address)):
            _come_back(to, number)
    number.add_incoming(at.add(number, _I64(1)), at.block)
    at.branch(loop)
    at.position_at_end(over)
    at.ret_void()
    return module


def _set_out(to: _Writer, number: Value) -> None:
    """The span is under way from now on."""
    at, depth = to.at, to.get(_DEPTH)
    full = at.icmp_signed(">=", depth, _I64(_DEEPEST))
    place = at.mul(at.select(full, _I64(0), depth), _I64(2))
    at.store(number, to.item(_FLIGHTS, place))
    at.store(to.now(), to.item(_FLIGHTS, at.add(place, _I64(1))))
    at.store(at.select(full, depth, at.add(depth, _I64(1))), to.word(_DEPTH))


def _come_back(to: _Writer, number: Value) -> None:
    """The latest execution of the span that is under way is over, if there is one."""
    at, depth = to.at, to.get(_DEPTH)
    before = at.block
    search, look, found, other, done = (to.block(name) for name in ("search", "look", "found", "other", "done"))
    at.branch(search)
    at.position_at_end(search)
    level = at.phi(_I64)
    level.add_incoming(depth, before)
    at.cbranch(at.icmp_signed(">", level, _I64(0)), look, done)
    at.position_at_end(look)
    place = at.mul(at.sub(level, _I64(1)), _I64(2))
    at.cbranch(at.icmp_signed("==", at.load(to.item(_FLIGHTS, place)), number), found, other)
    at.position_at_end(other)
    level.add_incoming(at.sub(level, _I64(1)), other)
    at.branch(search)
    at.position_at_end(found)
    begun = at.load(to.item(_FLIGHTS, at.add(place, _I64(1))))
    to.add(to.item(_TIMES, number), at.sub(to.now(), begun))
    last = at.mul(at.sub(depth, _I64(1)), _I64(2))
    for word in (0, 1):  # the one under way since the latest takes its place
        value = at.load(to.item(_FLIGHTS, at.add(last, _I64(word))))
        at.store(value, to.item(_FLIGHTS, at.add(place, _I64(word))))
    at.store(at.sub(depth, _I64(1)), to.word(_DEPTH))
    at.branch(done)
    at.position_at_end(done)
