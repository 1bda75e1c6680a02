"""Guest text that changes: every vCPU out of the way, and no engine left with old translations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pvops_core.errors import MachineError
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.engines import COLUMNS, AllEngines
from pvops_core.x86 import FLAG_AC, PAGE

if TYPE_CHECKING:
    from pvops_core.machine.base import MachineBase
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.exits.cpuslot import CpuSlot
    from pvops_core.machine.run.runloop import RunLoop

_FLUSH_ABOVE = 8
"""From about this many ranges on, dropping all of an engine's code is cheaper than each range."""
_MAX_STEPS = 64
_RIP = COLUMNS.index("rip")
# What decides how an address is translated: control registers, the level, AC, EFER.
_DECIDING = np.array(
    [{"cs": 3, "eflags": FLAG_AC, "rip": 0}.get(name, (1 << 64) - 1) for name in COLUMNS], dtype=np.uint64
)


Ranges = NDArray[np.uint64]
"""Virtual ranges ``[start, end)``, shape ``(n, 2)``."""


class Coherence:
    """Text coherence of one machine's engines."""

    def __init__(self, machine: MachineBase, loop: RunLoop, slots: list[CpuSlot]) -> None:
        self._machine = machine
        self._loop = loop
        self._slots = slots
        self._engines = AllEngines([slot.engine for slot in slots])

    def invalidate(self, ranges: Ranges) -> None:
        """Drop translations of the ranges on every engine."""
        counts = self._machine.counts
        many = np.count_nonzero(ranges[:, 0] < ranges[:, 1]) > _FLUSH_ABOVE
        pieces = [] if many else [piece for start, end in ranges.tolist() for piece in _by_page(start, end)]
        # From here a whole flush costs less than walking and dropping; what is flushed needs to see nothing.
        if many or len(pieces) > _FLUSH_ABOVE:
            blind = self._slots
        else:
            # An engine translates the addresses as the CPU would now, and a fault in that is kept for its next run.
            blind = self._blind(pieces)
            if len(blind) < len(self._slots):
                for start, end in pieces:
                    self._engines.drop(start, end)
            counts["code_ranges_dropped"] += len(pieces) * (len(self._slots) - len(blind))
        for slot in blind:
            counts["code_flushes"] += 1
            slot.engine.flush_code()

    def _blind(self, pieces: list[tuple[int, int]]) -> list[CpuSlot]:
        """The vCPUs that cannot see all of the pieces from where they are; the others are chosen."""
        # Most vCPUs are in the kernel's address space at one level, so one walk answers for all of them.
        keys = self._engines.look() & _DECIDING
        if bool((keys == keys[0]).all()):
            self._engines.choose()
            return [] if self._sees(self._slots[0], pieces) else self._slots
        seen: dict[bytes, bool] = {}
        sighted = np.zeros(len(self._slots), dtype=np.bool_)
        for slot, row in zip(self._slots, keys, strict=True):
            key = row.tobytes()
            if key not in seen:
                seen[key] = self._sees(slot, pieces)
            sighted[slot.vcpu.index] = seen[key]
        self._engines.choose(sighted)
        return [self._slots[index] for index in np.flatnonzero(~sighted).tolist()]

    @staticmethod
    def _sees(slot: CpuSlot, pieces: list[tuple[int, int]]) -> bool:
        try:
            for start, _ in pieces:
                slot.vcpu.walk(start, fetch=True)
        except GuestFault:
            return False
        return True

    def quiesce(self, ranges: Ranges) -> tuple[int, ...]:
        """Step every vCPU out of the inside of the ranges; gives those that do not leave."""
        if self._loop.in_guest:
            raise MachineError("quiesce from inside a handler: defer it")
        if not len(ranges):
            return ()
        places = self._engines.look()[:, _RIP, None]
        gates, last = self._loop.gates.span
        # One at a gate, or that has just left one, is about to return to where it was called from.
        concerned = (ranges[:, 0] < places) & (places < ranges[:, 1]) | (gates <= places) & (places <= last)
        return tuple(
            index
            for index in np.flatnonzero(concerned.any(axis=1)).tolist()
            if not self._leaves(self._slots[index], ranges)
        )

    def _leaves(self, slot: CpuSlot, ranges: Ranges) -> bool:
        vcpu = slot.vcpu
        for _ in range(_MAX_STEPS):
            if not self._inside(vcpu, ranges):
                return True
            at = vcpu.rip
            # Stepping alone wakes nobody: one that sleeps at hlt is woken first, as an interrupt would wake it.
            self._machine.rouse(vcpu)
            self._loop.step(slot)
            if vcpu.rip == at and self._at_gate(at):
                return False  # what it has called waits for another vCPU
        return not self._inside(vcpu, ranges)

    def _at_gate(self, address: int) -> bool:
        first, last = self._loop.gates.span
        return first <= address <= last and last > 0

    def _place(self, vcpu: Vcpu) -> int:
        """Where a vCPU is, or where it is about to return to from a gate."""
        at = vcpu.rip
        if self._at_gate(at):
            try:
                return vcpu.virtual.number(vcpu.rsp, self._machine.kind.pointer_size, system=True)
            except GuestFault:
                return at
        return at

    def _inside(self, vcpu: Vcpu, ranges: Ranges) -> bool:
        """Whether a vCPU executes the inside of a range, or is about to return into it from a gate."""
        at = self._place(vcpu)
        # A vCPU at the first byte has executed nothing of the range, and may find the new text there.
        return bool(((ranges[:, 0] < at) & (at < ranges[:, 1])).any())


def _by_page(start: int, end: int) -> list[tuple[int, int]]:
    """Cut [start, end) at page borders."""
    pieces = []
    while start < end:
        stop = min(end, (start | PAGE - 1) + 1)
        pieces.append((start, stop))
        start = stop
    return pieces
