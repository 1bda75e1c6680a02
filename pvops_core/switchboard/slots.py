"""Watches a running kernel's table of ops: every slot that the kernel writes is a switch in the event log.

The table is compared between slices, so watching costs nothing while the kernel runs and is the same in every run; a
switch is noted at the end of the slice in which it was made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.guest import GuestText
    from pvops_core.machine import Machine
    from pvops_core.ops import Slot
    from pvops_core.switchboard.table import OpTable


@attrs.frozen
class SlotWritten:
    """A slot that the kernel has written.

    Attributes:
        op: the op's hook name.
        old: the function that it held, by name.
        new: the function that it holds since.
        ns: virtual time at which that was seen.
    """

    op: str
    old: str
    new: str
    ns: int


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
        slots = sorted(table.layout.slots, key=lambda slot: slot.type)
        self._slots = slots
        start, end = table.address(slots[0]), table.address(slots[-1]) + self._size
        self._spans = tuple(text.spans(start, end - start))
        self._offsets = [table.address(slot) - start for slot in slots]
        self._last = self._read()
        self._owner: Callable[[Slot, int], bool] = lambda _slot, _value: False
        self.history: list[SlotWritten] = []
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
        written = SlotWritten(slot.op.name, self._table.name(old), self._table.name(new), self._machine.clock.ns)
        self.history.append(written)
        self._machine.log.record("switch", op=written.op, old=written.old, new=written.new, by="kernel", sites=0)

    def save(self) -> object:
        """State for a snapshot."""
        return self._last, tuple(self.history)

    def load(self, state: object) -> None:
        """Go back to a saved state."""
        assert isinstance(state, tuple)
        self._last, history = state
        self.history = list(history)
