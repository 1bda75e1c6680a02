"""Everything that the host knows of one guest, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from pvops_lguest.host.console import Console, DmaBindings
from pvops_lguest.host.data import LguestData
from pvops_lguest.host.interrupts import Interrupts
from pvops_lguest.host.traps import KernelStack, Traps

if TYPE_CHECKING:
    from pvops_core.machine import Stateful
    from pvops_lguest.host.abi import Abi
    from pvops_lguest.host.frames import FramePool
    from pvops_lguest.host.memory import GuestMemory
    from pvops_lguest.host.segments import Segments
    from pvops_lguest.host.shadow import ShadowTables


@attrs.define
class HostState:
    """One guest's host side (struct lguest of drivers/lguest/lg.h), and what it shares with the launcher.

    Attributes:
        abi: the generation that the guest speaks.
        memory: the guest's share of memory.
        frames: the host's own.
        shadow: its shadow page tables.
        segments: its descriptors.
        output: where its console text goes.
        wallclock: gives the time in nanoseconds since 1970.
        tsc_khz: frequency of the time-stamp counter that the guest is told; 0 = not to be used.
        data: its shared page, once it said where that is.
        ts: it wants to know when the FPU is used (the TS bit of its cr0).
        next_hcall: ring entry that is looked at next.
        switcher_entry: directory entry of the host's own 4 MiB at the top of every address space.
    """

    abi: Abi
    memory: GuestMemory
    frames: FramePool
    shadow: ShadowTables
    segments: Segments
    output: bytearray
    wallclock: Callable[[], int]
    tsc_khz: int = 0
    data: LguestData | None = None
    ts: bool = False
    next_hcall: int = 0
    switcher_entry: int = 0
    stack: KernelStack = attrs.field(factory=KernelStack, init=False)
    traps: Traps = attrs.field(init=False)
    interrupts: Interrupts = attrs.field(init=False)
    console: Console = attrs.field(init=False)
    dma: DmaBindings = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.traps = Traps(self.stack)
        self.interrupts = Interrupts(self.traps)
        self.console = Console(self.memory, self.output)
        self.dma = DmaBindings(self.memory)

    def write_time(self) -> None:
        """Tell the guest the time, as is done whenever an interrupt is delivered."""
        if self.data is not None:
            self.data.set_time(self.wallclock())

    def save(self) -> object:
        """Python's part of the state, for a snapshot."""
        data = None if self.data is None else self.data.pa
        parts = tuple(part.save() for part in self._parts())
        return data, self.ts, self.next_hcall, bytes(self.output), parts

    def load(self, state: object) -> None:
        """Go back to what :meth:`save` gave."""
        assert isinstance(state, tuple)
        data, self.ts, self.next_hcall, self.output[:], parts = state
        self.data = None if data is None else LguestData(self.memory, self.abi, data)
        for part, saved in zip(self._parts(), parts, strict=True):
            part.load(saved)

    def _parts(self) -> tuple[Stateful[Any], ...]:
        return self.frames, self.shadow, self.traps, self.interrupts, self.dma
