"""Watches a running kernel's table of ops: every slot that the kernel writes is a switch in the event log.

The table is compared between slices, so watching costs nothing while the kernel runs and is the same in every run; a
switch is noted at the end of the slice in which it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pvops_core.switchboard.findings import Switch, SwitchState
from pvops_core.switchboard.ops import KERNEL, SWITCH

if TYPE_CHECKING:
    from pvops_core.guest import GuestText
    from pvops_core.machine import Machine
    from pvops_core.ops import Slot
    from pvops_core.switchboard.kernel.table import OpTable


class SlotsState(NamedTuple):
    """The bytes of a table as they were last seen, and what had been written into it."""

    last: bytes
    history: tuple[SwitchState, ...]


class SlotWatch:
    """Compares a table with what it was, whenever no vCPU runs.

    Args:
        machine: the machine.
        text: the kernel's image in it.
        table: the table.

    Attributes:
        history: what was written, in order; of one moment by type number.
    """

    def __init__(self, machine: Machine, text: GuestText, table: OpTable) -> None:
        self._machine = machine
        self._table = table
        self._size = table.layout.pointer_size
        self._slots = sorted(table.layout.slots, key=lambda slot: slot.type)
        runs = _runs(sorted(table.address(slot) for slot in self._slots), self._size)
        self._spans = tuple(span for start, length in runs for span in text.spans(start, length))
        self._offsets = [_offset(runs, table.address(slot)) for slot in self._slots]
        self._last = self._read()
        self._owner: Callable[[Slot, int], bool] = lambda _slot, _value: False
        self.history: list[Switch] = []
        machine.keep(self)
        machine.watch(self.look)

    def own(self, owner: Callable[[Slot, int], bool]) -> None:
        """Ask ``owner`` first about each slot written and its new value: true if the write is its own work."""
        self._owner = owner

    def _read(self) -> bytes:
        memory = self._machine.memory
        return b"".join(memory.read(address, length) for address, length in self._spans)

    def accept(self) -> None:
        """What stands in the table now is no write of the kernel's."""
        self._last = self._read()

    def look(self) -> None:
        """Note what has been written since the last look."""
        now = self._read()
        if now == self._last:
            return
        before, self._last = self._last, now
        for slot, offset in zip(self._slots, self._offsets, strict=True):
            old, new = (int.from_bytes(words[offset : offset + self._size], "little") for words in (before, now))
            if old != new and not self._owner(slot, new):
                self.note(slot, old, new)
        self.accept()  # an owner may have written it anew

    def note(self, slot: Slot, old: int, new: int) -> None:
        """Note that the kernel has written a slot."""
        name, before, since = slot.op.name, self._table.name(old), self._table.name(new)
        self.history.append(Switch(name, before, since, KERNEL, self._machine.clock.ns, vcpu=None, sites=0))
        self._machine.log.record(SWITCH, op=name, old=before, new=since, by=KERNEL, sites=0)

    def save(self) -> SlotsState:
        """State for a snapshot."""
        return SlotsState(self._last, tuple(each.plain for each in self.history))

    def load(self, state: SlotsState) -> None:
        """Go back to a saved state."""
        self._last, history = state
        self.history = [Switch(*each) for each in history]


def _runs(addresses: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Start and length of the stretches that slots lie in: a kernel may have more tables than one."""
    runs: list[tuple[int, int]] = []
    for address in addresses:
        if runs and address == sum(runs[-1]):
            runs[-1] = runs[-1][0], runs[-1][1] + size
        else:
            runs.append((address, size))
    return runs


def _offset(runs: Sequence[tuple[int, int]], address: int) -> int:
    """Where an address lies in the bytes of all stretches together."""
    before = 0
    for start, length in runs:
        if start <= address < start + length:
            return before + address - start
        before += length
    raise AssertionError(f"{address:#x} is in none of the stretches it was one of")
