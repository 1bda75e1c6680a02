"""What Xen remembers of a domain and of each of its vCPUs. Snapshots have all of it as plain data."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from pvops_core.machine.run.plainly import Plainly
from pvops_core.x86 import DR6_RESET, DR7_RESET
from pvops_xen.hypervisor.abi import NR_TRAPS
from pvops_xen.hypervisor.events.queues import Fifo  # noqa: TC001 - a field, whose type is looked at
from pvops_xen.hypervisor.grants.state import GrantTable
from pvops_xen.hypervisor.layout import Abi  # noqa: TC001

OFFLINE: Final = 3
"""The state of a vCPU that is down (vcpu.h, ``RUNSTATE_offline``)."""
MAX_PORT: Final = 1023
"""Highest event channel that the toolstack allows a domain unless told otherwise (xl.cfg, event_channels)."""


@attrs.frozen
class EntryPoint:
    """Where the guest wants to be entered.

    Attributes:
        cs: code selector that the guest named.
        address: guest-virtual address.
        mask_events: the entry starts with upcalls masked.
        dpl: lowest privilege (0..3) that may raise it by a software interrupt.
    """

    cs: int = 0
    address: int = 0
    mask_events: bool = False
    dpl: int = 0

    def missing(self, bits: int) -> bool:
        """``null_trap_bounce``: a 64-bit guest has no handler at 0, a 32-bit one none behind a null selector."""
        return not (self.address if bits == 64 else self.cs & ~3)


NO_ENTRY = EntryPoint()


@attrs.frozen
class ResumePoint:
    """Where a vCPU is to go on.

    Attributes:
        cs, ss: selectors.
        rip, rsp, flags: registers.
        data: selectors of DS, ES, FS and GS, where those are to be loaded too.
    """

    cs: int
    ss: int
    rip: int
    rsp: int
    flags: int
    data: tuple[int, ...] = ()


@attrs.define
class Runstate:
    """State, since when (ns), and the time spent in each of the four."""

    state: int = OFFLINE
    since: int = 0
    times: list[int] = attrs.field(factory=lambda: [0, 0, 0, 0])


@attrs.define
class XenVcpuState:
    """One virtual CPU as Xen sees it.

    Attributes:
        index: its number.
        initialised: it has a context (always true of the first).
        up: it may run.
        guest_table: machine frame of the root for kernel mode; 0 before there is one.
        guest_table_user: that for user mode (64-bit guests); 0 for none.
        in_kernel: the guest is in kernel mode. For a 64-bit guest this is Xen's flag, for both modes run in ring 3.
        stale_user: the CPU may hold translations for level 3 that are not those of the present user root.
        kernel_ss, kernel_sp: stack for entries from user mode.
        traps: one entry a vector.
        event, failsafe, syscall, syscall32, sysenter: callbacks.
        gdt_frames: machine frames of the guest's GDT, 14 at most.
        gdt_ents: entries of it that count.
        ldt_base, ldt_ents: virtual address and size of the LDT.
        ldt_mapped: LDT page number to the machine frame mapped lazily for it.
        fs_base, gs_base_kernel, gs_base_user: segment bases of 64-bit guests.
        debugreg: DR0 to DR7, without the breakpoints on ports that DR7 enables.
        dr7_emul: the bits of DR7 that enable those.
        cr0, cr2, cr4: control registers as the guest sees them.
        cpuid_faulting: cpuid of its processes is #GP.
        msrs: registers that it has written and reads back.
        info: machine address of its vcpu_info.
        info_registered: it lies in guest memory (VCPUOP_register_vcpu_info).
        runstate_area, time_area: virtual addresses registered for them; 0 for none.
        time_until: from when on its time record is to be renewed, in ns.
        iopl: I/O privilege level set by physdev_op.
        iobmp, iobmp_limit: virtual address of its bitmap of ports, and how many ports that has.
        polled_port: the port that it read last; -1 after a write.
        singleshot: absolute time in ns of the single-shot timer; None if it is off.
        periodic: period in ns; 0 if off.
        periodic_next: absolute time of the next tick.
        poll_ports: event channels that it waits for in SCHEDOP_poll; None if it does not.
        poll_until: absolute time in ns when that wait ends; None for never.
        virqs: virtual interrupt to event channel.
        runstate: how it spends its time.
        interrupted, upcalls_in_row: where (RIP, RSP) the last upcall came straight behind an iret, and how many did.
        arrival: where it begins, until it first runs.
    """

    index: int
    initialised: bool = False
    up: bool = False
    guest_table: int = 0
    guest_table_user: int = 0
    in_kernel: bool = True
    stale_user: bool = True
    kernel_ss: int = 0
    kernel_sp: int = 0
    traps: list[EntryPoint] = attrs.field(factory=lambda: [NO_ENTRY] * NR_TRAPS)
    event: EntryPoint = NO_ENTRY
    failsafe: EntryPoint = NO_ENTRY
    syscall: EntryPoint = NO_ENTRY
    syscall32: EntryPoint = NO_ENTRY
    sysenter: EntryPoint = NO_ENTRY
    gdt_frames: list[int] = attrs.field(factory=list)
    gdt_ents: int = 0
    ldt_base: int = 0
    ldt_ents: int = 0
    ldt_mapped: dict[int, int] = attrs.field(factory=dict)
    fs_base: int = 0
    gs_base_kernel: int = 0
    gs_base_user: int = 0
    debugreg: list[int] = attrs.field(factory=lambda: [0, 0, 0, 0, 0, 0, DR6_RESET, DR7_RESET])
    dr7_emul: int = 0
    cr0: int = 0x8005_003B & ~8  # PE MP ET NE WP AM PG, TS off
    cr2: int = 0
    cr4: int = 0x620  # PAE OSFXSR OSXMMEXCPT
    cpuid_faulting: bool = False
    msrs: dict[int, int] = attrs.field(factory=dict)
    info: int = 0
    info_registered: bool = False
    runstate_area: int = 0
    time_area: int = 0
    time_until: int = 0
    iopl: int = 0
    iobmp: int = 0
    iobmp_limit: int = 0
    polled_port: int = -1
    interrupted: tuple[int, int] = (0, 0)
    upcalls_in_row: int = 0
    singleshot: int | None = None
    periodic: int = 10_000_000  # PV guests have a tick of 100 Hz until they say otherwise
    periodic_next: int = 10_000_000
    poll_ports: tuple[int, ...] | None = None
    poll_until: int | None = None
    virqs: dict[int, int] = attrs.field(factory=dict)
    runstate: Runstate = attrs.field(factory=Runstate)
    arrival: ResumePoint | None = None


class ChannelState(enum.IntEnum):
    """``EVTCHNSTAT_*``."""

    CLOSED = 0
    UNBOUND = 1
    INTERDOMAIN = 2
    PIRQ = 3
    VIRQ = 4
    IPI = 5


@attrs.define
class Channel:
    """An event channel of the domain.

    Attributes:
        state: what it is bound to.
        vcpu: vCPU that is notified.
        detail: the virtual interrupt, or the remote domain.
        sink: who is at the other end: "console", "xenstore", "loop" for the domain itself, or nobody (empty).
    """

    state: ChannelState = ChannelState.CLOSED
    vcpu: int = 0
    detail: int = 0
    sink: str = ""


@attrs.define
class Domain:
    """The guest's domain.

    Attributes:
        abi: offsets for its width.
        nr_pages: frames it was built with.
        shared_info: machine address.
        vcpus: its virtual CPUs.
        channels: event channels, index 0 never used.
        max_port: number of the highest that it may have (``d->max_evtchn_port``).
        fifo: their queues, if the domain uses the FIFO interface.
        assists: bit set of VmAssist.
        p2m: machine frame of each of the guest's frames at build time.
        crashed: Xen's message if the domain was crashed.
        grants: its grant table.
        shutdown_code: why it shuts down, when it has said so.
        watchdogs: when each of those that it has started ends it, in ns, by number.
        cmos_index, pci_address: what it last wrote to ports 0x70 and 0xcf8.
        pirqs: interrupt numbers that it has reserved.
        asked: what its toolstack asks it to do, as of ``xl shutdown``, and when, in ns; None for nothing.
        eoi_frame: frame in which it wants to be told of interrupts to be ended; 0 for none.
    """

    abi: Abi
    nr_pages: int
    shared_info: int
    vcpus: list[XenVcpuState]
    channels: list[Channel] = attrs.field(factory=lambda: [Channel() for _ in range(64)])
    max_port: int = MAX_PORT
    fifo: Fifo | None = None
    assists: int = 0
    p2m: list[int] = attrs.field(factory=list)
    crashed: str = ""
    domid: int = 1
    e820: tuple[tuple[int, int, int], ...] = ()
    grants: GrantTable = attrs.field(factory=GrantTable)
    shutdown_code: int | None = None
    watchdogs: dict[int, int] = attrs.field(factory=dict)
    cmos_index: int = 0
    pci_address: int = 0
    pirqs: set[int] = attrs.field(factory=set)
    asked: tuple[str, int] | None = None
    eoi_frame: int = 0

    def assisted(self, assist: int) -> bool:
        """A vm_assist type is enabled."""
        # vm_assist types are bit numbers of the domain's word.
        return bool(self.assists >> assist & 1)

    def save(self) -> DomainState:
        """All of it as plain data, field by field."""
        return _PLAINLY.save(self)

    def load(self, state: DomainState) -> None:
        """Take over what ``save`` gave; others hold the domain itself."""
        loaded = _PLAINLY.load(state)
        # In place: other objects hold the domain, and would go on with an old one.
        for field in attrs.fields(Domain):
            setattr(self, field.name, getattr(loaded, field.name))


_PLAINLY: Final = Plainly(Domain)
if TYPE_CHECKING:
    DomainState: TypeAlias = tuple[Any, ...]
else:
    DomainState = _PLAINLY.type
