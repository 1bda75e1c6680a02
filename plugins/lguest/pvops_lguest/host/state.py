"""Everything that the host knows of one guest, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from pvops_lguest.host.console import Console, DmaBindings
from pvops_lguest.host.data import LguestData
from pvops_lguest.host.interrupts import Interrupts, InterruptState
from pvops_lguest.host.shadow import ShadowState  # noqa: TC001 - states are read by their types
from pvops_lguest.host.traps import KernelStack, Traps, TrapState

if TYPE_CHECKING:
    from pvops_lguest.host.abi import Abi
    from pvops_lguest.host.frames import FramePool
    from pvops_lguest.host.memory import GuestMemory
    from pvops_lguest.host.segments import Segments
    from pvops_lguest.host.shadow import ShadowTables


class Devices(Protocol):
    """What the launcher has put above a kernel's memory."""

    def notify(self, pa: int) -> bool:
        """NOTIFY: whether the address was one of theirs."""

    def typed(self, data: bytes) -> None:
        """Something was typed at the console."""

    def poll(self) -> None:
        """Before the guest is entered: put in what waits, if it has room now."""

    def save(self) -> tuple[bytes, tuple[int, ...]]:
        """State for a snapshot."""

    def load(self, state: tuple[bytes, tuple[int, ...]]) -> None:
        """Go back to what :meth:`save` gave."""


class SavedHost(NamedTuple):
    """A host side in a snapshot: address of the shared page, fields as below, and the states of its parts."""

    data: int | None
    ts: bool
    next_hcall: int
    output: bytes
    frames: tuple[int, ...]
    shadow: ShadowState
    traps: TrapState
    interrupts: InterruptState
    dma: tuple[tuple[int, int, int, int], ...]
    devices: tuple[bytes, tuple[int, ...]] | None


@attrs.define
class HostState:
    """One guest's host side (struct lguest of drivers/lguest/lg.h), and what it shares with the launcher.

    Attributes:
        abi: the generation that the guest speaks.
        memory: the guest's share of memory.
        frames: the host's own.
        shadow: its shadow page tables.
        segments: its descriptors.
        output: its console text.
        emit: puts text there.
        ram: where its memory proper ends.
        wallclock: gives the time in nanoseconds since 1970.
        tsc_khz: frequency of the time-stamp counter that the guest is told; 0 = not to be used.
        data: its shared page, once it said where that is.
        ts: it wants to know when the FPU is used (the TS bit of its cr0).
        next_hcall: ring entry that is looked at next.
        switcher_entry: directory entry of the host's own 4 MiB at the top of every address space.
        devices: what the launcher has put above its memory; None for the built-in guest, which has none there.
        dma_sent: told of SEND_DMA with a key that is not the console's.
    """

    abi: Abi
    memory: GuestMemory
    frames: FramePool
    shadow: ShadowTables
    segments: Segments
    output: bytearray
    emit: Callable[[bytes], None]
    ram: int
    wallclock: Callable[[], int]
    tsc_khz: int = 0
    data: LguestData | None = None
    ts: bool = False
    next_hcall: int = 0
    switcher_entry: int = 0
    devices: Devices | None = None
    dma_sent: Callable[[int], None] = lambda _key: None
    stack: KernelStack = attrs.field(factory=KernelStack, init=False)
    traps: Traps = attrs.field(init=False)
    interrupts: Interrupts = attrs.field(init=False)
    console: Console = attrs.field(init=False)
    dma: DmaBindings = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # All parts share these objects: load() fills them in place, so that references stay good.
        self.traps = Traps(self.stack)
        self.interrupts = Interrupts(self.traps)
        self.console = Console(self.memory, self.emit, self.ram)
        self.dma = DmaBindings(self.memory)

    def write_time(self) -> None:
        """Tell the guest the time, as is done whenever an interrupt is delivered."""
        if self.data is not None:
            self.data.set_time(self.wallclock())

    def save(self) -> SavedHost:
        """Python's part of the state, for a snapshot."""
        return SavedHost(
            None if self.data is None else self.data.pa,
            self.ts,
            self.next_hcall,
            bytes(self.output),
            self.frames.save(),
            self.shadow.save(),
            self.traps.save(),
            self.interrupts.save(),
            self.dma.save(),
            None if self.devices is None else self.devices.save(),
        )

    def load(self, state: SavedHost) -> None:
        """Go back to what :meth:`save` gave."""
        self.data = None if state.data is None else LguestData(self.memory, self.abi, state.data)
        # In place: the platform shows the same bytearray.
        self.ts, self.next_hcall, self.output[:] = state.ts, state.next_hcall, state.output
        self.frames.load(state.frames)
        self.shadow.load(state.shadow)
        self.traps.load(state.traps)
        self.interrupts.load(state.interrupts)
        self.dma.load(state.dma)
        if self.devices is not None and state.devices is not None:
            self.devices.load(state.devices)
