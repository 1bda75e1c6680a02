"""The hypervisor's state in one place: what the hypercall modules work on. It decides nothing itself."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import attrs

from pvops_core.machine.run.eventkinds import event_kind
from pvops_xen.hypervisor.abi import PAGE_SHIFT
from pvops_xen.hypervisor.console import ConsoleState  # noqa: TC001 - states are read by their types
from pvops_xen.hypervisor.memory.frames import FramesState  # noqa: TC001 - states are read by their types
from pvops_xen.hypervisor.memory.space import GuestSpace
from pvops_xen.hypervisor.state import DomainState  # noqa: TC001 - likewise
from pvops_xen.xenstore.service import StoreState  # noqa: TC001 - states are read by their types

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pvops_core.backends import HypercallMade
    from pvops_core.machine import Machine, PhysicalMemory, Vcpu
    from pvops_xen.hypervisor.console import XenConsole
    from pvops_xen.hypervisor.layout import Abi
    from pvops_xen.hypervisor.memory.frames import FrameTable
    from pvops_xen.hypervisor.memory.validate import Validator
    from pvops_xen.hypervisor.state import Domain, XenVcpuState
    from pvops_xen.xenstore.service import StoreService

_XEN: Final = event_kind(
    "xen",
    "Xen wrote a line to its own console.",
    message="str: the line",
)


_MESSAGES: Final = 100


class Statistics(Protocol):
    """Counts of what the guest made Xen do, and what it printed."""

    console: bytearray
    hypercalls: Counter[str]
    traps: Counter[str]
    page_table_updates: int
    flushes: int
    messages: list[str]

    @property
    def observers(self) -> Sequence[Callable[[HypercallMade], None]]:
        """Who is told of hypercalls."""

    def tell(self, made: HypercallMade) -> None:
        """A hypercall has been made: tell the observers."""

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        """The function of the guest's kernel that an address lies in, and how far, if that is known."""


class FrameRegisters:
    """The registers of a 64-bit vCPU that frames hold, in the groups in which they are read and written."""

    def __init__(self, cpu: Vcpu) -> None:
        self.frame = cpu.batch("rip", "rsp", "rflags", "rcx", "r11")
        self.place = cpu.batch("rsp", "rflags")
        self.back = cpu.batch("rsp", "rflags", "rax", "rcx", "r11")
        self.called = cpu.batch("cs", "ss", "rip", "rflags")
        self.selectors = cpu.batch("cs", "ss")
        self.clobbered = cpu.batch("rcx", "r11")


class HypervisorState(NamedTuple):
    """The hypervisor in a snapshot: the states of its domain and of its parts, and what has been counted."""

    domain: DomainState
    frames: FramesState
    epoch: int
    printed: bytes
    console: ConsoleState
    store: StoreState
    messages: tuple[str, ...]
    hypercalls: dict[str, int]
    traps: dict[str, int]
    page_table_updates: int
    flushes: int


@attrs.define(eq=False)
class Hypervisor:
    """One domain on one machine.

    Attributes:
        machine: the machine; its memory is machine memory.
        domain: the guest's domain.
        frames: the frame table.
        validator: type rules over it.
        console: what the guest printed, and what is typed for it.
        store: the xenstore that it talks to.
        stats: where hypercalls, traps, page-table updates and flushes are counted.
        m2p: machine address of the machine-to-physical table.
        perdomain_l1: machine addresses of the L1 tables that map each vCPU's GDT and LDT pages for the CPU.
        descriptor_base: virtual address that the first of them maps.
        scratch: a machine frame of Xen's, for copies of page tables.
        in_multicall: a multicall is being served; one cannot hold another.
        continuation: arguments with which a preempted hypercall (-ERESTART) is to be made again.
        memory: machine memory.
        space: the guest's address space.
        registers: those of each vCPU that frames hold, for 64-bit guests.
    """

    machine: Machine
    domain: Domain
    frames: FrameTable
    validator: Validator
    console: XenConsole
    store: StoreService
    stats: Statistics
    m2p: int = 0
    perdomain_l1: tuple[int, ...] = ()
    descriptor_base: int = 0
    scratch: int = 0
    in_multicall: bool = False
    continuation: tuple[int, ...] = ()
    memory: PhysicalMemory = attrs.field(init=False)
    space: GuestSpace = attrs.field(init=False)
    registers: tuple[FrameRegisters, ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Look at the guest's address space through its memory, and prepare reading its registers."""
        self.memory = self.machine.memory
        self.space = GuestSpace(self.memory, self.domain)
        # A 32-bit guest's frame is its own stack's, so nothing is read in a batch.
        self.registers = tuple(map(FrameRegisters, self.machine.vcpus)) if self.abi.bits == 64 else ()

    @property
    def abi(self) -> Abi:
        """Offsets for the guest's width."""
        return self.domain.abi

    def state(self, cpu: Vcpu) -> XenVcpuState:
        """What Xen knows of a vCPU."""
        return self.domain.vcpus[cpu.index]

    def log(self, message: str) -> None:
        """Xen's own console (``gdprintk``): part of the event log and the result, not of the guest's output."""
        self.machine.log.record(_XEN, message=message)
        self.stats.messages.append(message)
        # Only the newest: the log has them all.
        del self.stats.messages[:-_MESSAGES]

    def crash(self, message: str) -> None:
        """``domain_crash``: the run ends, and says why."""
        # The first reason is the one to be told: what follows it is aftermath.
        if not self.domain.crashed:
            self.domain.crashed = message
            self.log(f"domain crash: {message}")
            self.machine.stop("crash", message)

    def pfn_of(self, mfn: int) -> int:
        """get_gpfn_from_mfn(): machine-to-physical entry of a frame."""
        # A PAE guest's entries are 32 bits, as its frame numbers are.
        if self.abi.m2p_entry == 8:
            return self.memory.u64(self.m2p + 8 * mfn)
        return self.memory.u32(self.m2p + 4 * mfn)

    def set_pfn_of(self, mfn: int, pfn: int) -> None:
        """Change it; a value that does not fit an entry is cut off, as the store itself does."""
        if self.abi.m2p_entry == 8:
            self.memory.set_u64(self.m2p + 8 * mfn, pfn)
        else:
            self.memory.set_u32(self.m2p + 4 * mfn, pfn & 0xFFFF_FFFF)

    def flush_tlb(self, vcpus: int | None = None, address: int | None = None) -> None:
        """flush_tlb_mask(): one address or everything, of the TLBs of a set of vCPUs (bit mask; None: all)."""
        self.stats.flushes += 1
        for cpu in self.machine.vcpus:
            # All vCPUs, or those of a mask: what one of them has must not outlive the change.
            if vcpus is None or vcpus >> cpu.index & 1:
                cpu.flush_tlb(address)

    def load_cr3(self, cpu: Vcpu) -> None:
        """write_ptbase(): run on the page table of the present mode."""
        state = self.state(cpu)
        root = state.guest_table if state.in_kernel or self.abi.bits == 32 else state.guest_table_user
        cpu.cr3 = root << PAGE_SHIFT
        # User mode may take in translations of the kernel's pages; the next change of mode drops them.
        state.stale_user = not state.in_kernel  # everything is flushed, but user mode may fill in some of the kernel's

    def save(self) -> HypervisorState:
        """State for a snapshot: everything that is not in machine memory."""
        stats = self.stats
        return HypervisorState(
            self.domain.save(),
            self.frames.save(),
            self.validator.epoch,
            bytes(stats.console),
            self.console.save(),
            self.store.save(),
            tuple(stats.messages),
            dict(stats.hypercalls),
            dict(stats.traps),
            stats.page_table_updates,
            stats.flushes,
        )

    def load(self, saved: HypervisorState) -> None:
        """Take over what ``save`` gave."""
        self.domain.load(saved.domain)
        self.frames.load(saved.frames)
        self.validator.epoch = saved.epoch
        self.console.load(saved.console)
        self.store.load(saved.store)
        stats = self.stats
        stats.console[:] = saved.printed
        stats.messages[:] = saved.messages
        stats.page_table_updates, stats.flushes = saved.page_table_updates, saved.flushes
        for mine, theirs in ((stats.hypercalls, saved.hypercalls), (stats.traps, saved.traps)):
            mine.clear()
            mine.update(theirs)
