"""Guest text that changes: every vCPU out of the way, and no engine left with old translations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pvops_core.errors import MachineError
from pvops_core.machine.faults import GuestFault

if TYPE_CHECKING:
    from pvops_core.machine.cpuslot import CpuSlot
    from pvops_core.machine.machine import Machine
    from pvops_core.machine.vcpu import Vcpu

_FLUSH_ABOVE = 8
"""From about this many ranges on, dropping all of an engine's code is cheaper than each range."""
_MAX_STEPS = 64
_PAGE = 0x1000


Ranges = NDArray[np.uint64]
"""Virtual ranges ``[start, end)``, shape ``(n, 2)``."""


class Coherence:
    """Text coherence of one machine's engines."""

    def __init__(self, machine: Machine, slots: list[CpuSlot]) -> None:
        self._machine = machine
        self._slots = slots

    def invalidate(self, ranges: Ranges) -> None:
        """Drop translations of the ranges on every engine."""
        if len(ranges) > _FLUSH_ABOVE:
            for slot in self._slots:
                self._flush(slot)
            return
        pieces = [piece for start, end in ranges.tolist() for piece in _by_page(start, end)]
        visible: dict[tuple[int, ...], bool] = {}
        for slot in self._slots:
            self._invalidate(slot, pieces, visible)

    def _invalidate(self, slot: CpuSlot, pieces: list[tuple[int, int]], visible: dict[tuple[int, ...], bool]) -> None:
        # The engine translates the addresses as the CPU would now, and silently does nothing where that faults.
        # Most vCPUs are in the kernel's address space at one level, so one walk answers for all of them.
        key = slot.vcpu.virtual.key()
        seen = visible.get(key)
        if seen is None:
            few = len(pieces) <= _FLUSH_ABOVE
            seen = visible[key] = few and all(self._visible(slot, start) for start, _ in pieces)
        if not seen:
            self._flush(slot)
            return
        self._machine.counts["code_ranges_dropped"] += len(pieces)
        for start, end in pieces:
            slot.engine.remove_code(start, end)

    def _flush(self, slot: CpuSlot) -> None:
        self._machine.counts["code_flushes"] += 1
        slot.engine.flush_code()

    @staticmethod
    def _visible(slot: CpuSlot, va: int) -> bool:
        try:
            slot.vcpu.walk(va, fetch=True)
        except GuestFault:
            return False
        return True

    def quiesce(self, ranges: Ranges) -> None:
        """Step every vCPU out of the inside of the ranges."""
        if self._machine.loop.in_guest:
            raise MachineError("quiesce from inside a handler: defer it")
        places = np.array([self._place(slot.vcpu) for slot in self._slots], dtype=np.uint64)[:, None]
        inside = ((ranges[:, 0] < places) & (places < ranges[:, 1])).any(axis=1)
        for index in np.flatnonzero(inside).tolist():
            self._leave(self._slots[index], ranges)

    def _leave(self, slot: CpuSlot, ranges: Ranges) -> None:
        vcpu = slot.vcpu
        for _ in range(_MAX_STEPS):
            if not self._inside(vcpu, ranges):
                return
            self._machine.loop.step(slot)
        raise MachineError("does not leave the text that is to be changed", vcpu=vcpu.index, rip=vcpu.rip)

    def _place(self, vcpu: Vcpu) -> int:
        """Where a vCPU is, or where it is about to return to from a gate."""
        at = vcpu.rip
        if at == self._machine.gates.return_address:
            at = vcpu.virtual.number(vcpu.rsp, self._machine.kind.pointer_size, system=True)
        return at

    def _inside(self, vcpu: Vcpu, ranges: Ranges) -> bool:
        """Whether a vCPU executes the inside of a range, or is about to return into it from a gate."""
        at = self._place(vcpu)
        return bool(((ranges[:, 0] < at) & (at < ranges[:, 1])).any())


def _by_page(start: int, end: int) -> list[tuple[int, int]]:
    """Cut [start, end) at page borders."""
    pieces = []
    while start < end:
        stop = min(end, (start | _PAGE - 1) + 1)
        pieces.append((start, stop))
        start = stop
    return pieces
