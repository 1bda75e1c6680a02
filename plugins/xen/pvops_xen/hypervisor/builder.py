"""The domain builder: Xen's frames, the guest's scattered memory, its page tables, start_info, first registers."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.backends.settings import EPOCH
from pvops_core.errors import MachineError
from pvops_core.guest.cmdline import command_line
from pvops_core.x86 import MSR_EFER
from pvops_xen.hypervisor.abi import (
    FIRST_RESERVED_GDT_PAGE,
    FLAT_KERNEL_CS64,
    FLAT_KERNEL_SS64,
    FLAT_RING1_CS32,
    FLAT_RING1_DS32,
    PAGE_SHIFT,
    PAGE_SIZE,
)
from pvops_xen.hypervisor.console import XenConsole
from pvops_xen.hypervisor.core import Hypervisor, Statistics
from pvops_xen.hypervisor.grants import table as grants
from pvops_xen.hypervisor.layout import START_INFO, abi_of
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory.frames import GUEST, PINNED, XEN, FrameTable
from pvops_xen.hypervisor.memory.mmuext import root_type
from pvops_xen.hypervisor.memory.validate import Validator, XenSlots
from pvops_xen.hypervisor.processor.bounce64 import raise_kernel
from pvops_xen.hypervisor.processor.ldt import drop_frame
from pvops_xen.hypervisor.processor.segments import WINDOW_PAGES, map_slot, window, xen_gdt_page
from pvops_xen.hypervisor.scheduling import runstate
from pvops_xen.hypervisor.scheduling.timers import renew_time, write_wallclock
from pvops_xen.hypervisor.state import Domain, XenVcpuState
from pvops_xen.xenstore.service import StoreService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pvops_core.machine import Machine, PhysicalMemory, Vcpu

_PERDOMAIN64: Final = 0xFFFF_8200_0000_0000  # L4 slot 260
_PERDOMAIN32: Final = 0xFC00_0000  # behind the M2P table, in the last GiB's hole
_XEN_TABLE: Final = pte.P | pte.RW | pte.USER | pte.A | pte.D
_M2P_PAGE: Final = pte.P | pte.USER | pte.A
_GUEST_PAGE: Final = pte.P | pte.RW | pte.A
_GUEST_TABLE: Final = pte.P | pte.RW | pte.USER | pte.A | pte.D
_MAX_VCPUS: Final = 32

_CR4: Final = 1 << 5 | 1 << 9 | 1 << 10  # PAE OSFXSR OSXMMEXCPT; the machine answers rdtsc from virtual time
_CR0: Final = 0x8001_0033  # PG WP NE ET MP PE


@attrs.define
class _XenHeap:
    """Frames that Xen takes for itself, from the bottom of machine memory."""

    frames: FrameTable
    memory: PhysicalMemory
    next: int = 1

    def take(self, count: int = 1) -> int:
        """The first of ``count`` cleared frames in a row."""
        first = self.next
        # Checked here, since a machine too small for Xen is told before any guest is built.
        if first + count > len(self.frames):
            raise MachineError("the machine's memory is too small for a hypervisor")
        for mfn in range(first, first + count):
            self.frames.give(mfn, XEN)
        self.next += count
        return first


def _map_range(heap: _XenHeap, va: int, frames: Iterable[int], flags: int, top: tuple[int, dict[int, int]]) -> None:
    """Map frames in a row at ``va`` below the tables of ``top``: (level of those entries, slot to entry)."""
    level, slots = top
    memory = heap.memory
    for index, mfn in enumerate(frames):
        address = va + (index << PAGE_SHIFT)
        slot = address >> (3 + 9 * level) & 511
        if slot not in slots:
            slots[slot] = heap.take() << PAGE_SHIFT | _XEN_TABLE
        table = slots[slot] & pte.ADDRESS
        for lower in range(level - 1, 1, -1):
            entry = table + (address >> (3 + 9 * lower) & 511) * 8
            if not memory.u64(entry) & pte.P:
                memory.set_u64(entry, heap.take() << PAGE_SHIFT | _XEN_TABLE)
            table = memory.u64(entry) & pte.ADDRESS
        memory.set_u64(table + (address >> PAGE_SHIFT & 511) * 8, mfn << PAGE_SHIFT | flags)


def _l1_tables(memory: PhysicalMemory, va: int, pages: int, top: tuple[int, dict[int, int]]) -> Iterator[int]:
    """Machine addresses of the L1 tables that ``_map_range`` made for a range."""
    level, slots = top
    for address in range(va, va + (pages << PAGE_SHIFT), 512 << PAGE_SHIFT):
        table = slots[address >> (3 + 9 * level) & 511] & pte.ADDRESS
        for lower in range(level - 1, 1, -1):
            table = memory.u64(table + (address >> (3 + 9 * lower) & 511) * 8) & pte.ADDRESS
        yield table


def create(
    machine: Machine,
    stats: Statistics,
    emit: Callable[[bytes], None],
    *,
    seed: int,
    guest_memory: int | None = None,
    epoch: int = EPOCH,
) -> Hypervisor:
    """domain_create(): one empty domain; Xen has its frames, the guest its memory in an order that the seed decides.

    Args:
        machine: the machine.
        stats: where things are counted.
        emit: receives what the guest prints.
        seed: of the order.
        guest_memory: bytes; None for all that is left.
        epoch: the date when system time is 0, in seconds since 1970.

    Raises:
        MachineError: too many vCPUs, or too little memory.
    """
    memory, bits = machine.memory, machine.kind.bits
    if len(machine.vcpus) > _MAX_VCPUS:
        raise MachineError(f"a domain has at most {_MAX_VCPUS} vCPUs here, not {len(machine.vcpus)}")
    abi = abi_of(bits)
    frames = FrameTable.of_size(memory.size >> PAGE_SHIFT)
    frames.give(0, XEN)  # nobody ever has it, so that 0 can mean none
    heap = _XenHeap(frames, memory)
    slots: dict[int, int] = {}
    top = (4 if bits == 64 else 2, slots)
    m2p_pages = (len(frames) * abi.m2p_entry + PAGE_SIZE - 1) >> PAGE_SHIFT
    # The M2P table is what guests look frames up in, so it must be there before any of them is read.
    m2p = heap.take(m2p_pages)
    _map_range(heap, abi.m2p_start, range(m2p, m2p + m2p_pages), _M2P_PAGE, top)
    windows = _PERDOMAIN64 if bits == 64 else _PERDOMAIN32
    window_pages = WINDOW_PAGES * len(machine.vcpus)
    # Windows of all vCPUs stand empty: their pages fault until a table is loaded.
    _map_range(heap, windows, [0] * window_pages, 0, top)
    gdt = heap.take()
    memory.write(gdt << PAGE_SHIFT, xen_gdt_page(bits))
    shared_info = heap.take()
    # Taken as Xen's and given as shared: the guest may map it writable, and never own it.
    frames.owner[shared_info] = 0
    frames.share_writable(shared_info)
    xen_slots = XenSlots(l4=slots) if bits == 64 else XenSlots(l2=slots)
    domain = Domain(abi, 0, shared_info << PAGE_SHIFT, [XenVcpuState(cpu.index) for cpu in machine.vcpus])
    hv = Hypervisor(
        machine=machine,
        domain=domain,
        frames=frames,
        validator=Validator(frames, memory, bits, xen_slots),
        console=XenConsole(emit),
        store=StoreService(domain.domid),
        stats=stats,
        m2p=m2p << PAGE_SHIFT,
        perdomain_l1=tuple(_l1_tables(memory, windows, window_pages, top)),
        descriptor_base=windows,
        scratch=heap.take(),
    )
    hv.validator.log = hv.console.log = hv.store.log = hv.log
    hv.validator.flush_stale = hv.flush_tlb
    hv.validator.turn = lambda: machine.turn
    hv.validator.drop_descriptors = lambda mfn: drop_frame(hv, mfn)
    # Grant frames are taken now, so that a guest's calls never find Xen without memory.
    domain.grants.spare = [heap.take() for _ in range(grants.FRAMES_NEEDED)]
    grants.grow(hv, 1)
    # INVALID_M2P_ENTRY everywhere: what belongs to nobody has no pseudo-physical number.
    memory.write(hv.m2p, b"\xff" * (m2p_pages << PAGE_SHIFT))
    _give_memory(hv, heap.next, guest_memory, seed)
    # Xen's page of the GDT stands behind the guest's in every window, whatever it loads.
    for cpu in machine.vcpus:
        map_slot(hv, cpu.index, FIRST_RESERVED_GDT_PAGE, gdt)
        _init_vcpu_info(hv, domain.vcpus[cpu.index])
    write_wallclock(hv, epoch)
    return hv


def _give_memory(hv: Hypervisor, first: int, size: int | None, seed: int) -> None:
    order = list(range(first, len(hv.frames)))
    count = len(order) if size is None else size >> PAGE_SHIFT
    if count > len(order):
        raise MachineError(f"the machine has {len(order)} frames for the guest, who is to have {count}")
    # Scattered, since a guest that takes machine frames to be in a row must be found out.
    random.Random(seed).shuffle(order)  # noqa: S311 - the same every time on purpose
    del order[count:]
    for mfn in order:
        hv.frames.give(mfn, GUEST)
    entries = np.frombuffer(hv.memory.array.data, np.uint64 if hv.abi.m2p_entry == 8 else np.uint32, offset=hv.m2p)
    entries[order] = np.arange(len(order))
    hv.domain.p2m = order
    hv.domain.nr_pages = len(order)


def _init_vcpu_info(hv: Hypervisor, state: XenVcpuState) -> None:
    state.info = hv.domain.shared_info + state.index * hv.abi.vcpu_info_size
    hv.memory.set_u8(state.info + hv.abi.upcall_mask, 1)  # upcalls start masked
    renew_time(hv, state.index)


def write_physical(hv: Hypervisor, address: int, data: bytes) -> None:
    """Store bytes at a pseudo-physical address, page by page."""
    at = 0
    while at < len(data):
        pfn, offset = address + at >> PAGE_SHIFT, (address + at) % PAGE_SIZE
        size = min(PAGE_SIZE - offset, len(data) - at)
        if pfn >= hv.domain.nr_pages:
            raise MachineError(f"the guest's image needs pseudo-physical page {pfn}; it has {hv.domain.nr_pages}")
        hv.memory.write((hv.domain.p2m[pfn] << PAGE_SHIFT) + offset, data[at : at + size])
        at += size


@attrs.frozen
class InitialTables:
    """Page tables made for the guest.

    Attributes:
        first_pfn: pseudo-physical frame of the first of them, the root.
        count: how many; they lie in a row.
        root: machine frame of the root.
    """

    first_pfn: int
    count: int
    root: int


def build_tables(hv: Hypervisor, virt_base: int, first_pfn: int) -> InitialTables:
    """Map all memory at ``virt_base`` with 4 KiB pages, the tables (from ``first_pfn`` on) read-only; pin the root."""
    domain, memory = hv.domain, hv.memory
    top = 4 if hv.abi.bits == 64 else 3
    p2m = domain.p2m
    next_pfn = first_pfn + 1
    tables: dict[tuple[int, int], int] = {}

    def child(level: int, va: int) -> int:
        """Pseudo-physical frame of the table of a level that maps ``va``."""
        nonlocal next_pfn
        key = level, va >> (12 + 9 * level)
        if key not in tables:
            if next_pfn >= domain.nr_pages:
                raise MachineError("the guest's memory is too small for its page tables")
            tables[key] = next_pfn
            memory.write(p2m[next_pfn] << PAGE_SHIFT, bytes(PAGE_SIZE))
            next_pfn += 1
        return tables[key]

    limit = virt_base + (domain.nr_pages << PAGE_SHIFT)
    if limit > (1 << 64 if hv.abi.bits == 64 else hv.abi.m2p_start):
        raise MachineError("the guest's memory does not fit above its virtual base")
    for va in range(virt_base, limit, 512 << PAGE_SHIFT):
        for level in range(top - 1, 0, -1):
            child(level, va)
    memory.write(p2m[first_pfn] << PAGE_SHIFT, bytes(PAGE_SIZE))
    for (level, number), pfn in tables.items():
        va = number << (12 + 9 * level)
        parent = p2m[tables[level + 1, va >> (12 + 9 * (level + 1))] if level + 1 < top else first_pfn] << PAGE_SHIFT
        # A PAE root's entry has no rights at all (SDM volume 3, table 4-8).
        flags = pte.P if top == 3 and level == 2 else _GUEST_TABLE
        memory.set_u64(parent + (va >> (12 + 9 * level) & 511) * 8, p2m[pfn] << PAGE_SHIFT | flags)
    for pfn in range(domain.nr_pages):
        va = virt_base + (pfn << PAGE_SHIFT)
        table = p2m[tables[1, va >> 21]] << PAGE_SHIFT
        # Page tables are mapped read-only, as Xen demands of every table in use.
        flags = _GUEST_PAGE & ~pte.RW if first_pfn <= pfn < next_pfn else _GUEST_PAGE
        memory.set_u64(table + (va >> PAGE_SHIFT & 511) * 8, p2m[pfn] << PAGE_SHIFT | flags)
    return InitialTables(first_pfn, next_pfn - first_pfn, pin_root(hv, p2m[first_pfn]))


def pin_root(hv: Hypervisor, mfn: int) -> int:
    """Pin a root and make it vCPU 0's: one reference each. Gives the root.

    Raises:
        MachineError: it is no tree of page tables that Xen takes.
    """
    kind = root_type(hv.abi.bits)
    # One reference for the pin, one for the vCPU that runs on it (``new_guest_cr3``).
    for _ in range(2):
        if hv.validator.get_page_and_type(mfn, kind):
            raise MachineError("the initial page tables do not validate")
    hv.frames.flags[mfn] |= PINNED
    hv.domain.vcpus[0].guest_table = mfn
    return mfn


def start_info(hv: Hypervisor, tables: InitialTables, *, pt_base: int, mfn_list: int, cmdline: str) -> bytes:
    """``struct start_info`` of the built-in guest: addresses are guest-virtual but shared_info's, a machine address."""
    fields = {"pt_base": pt_base, "nr_pt_frames": tables.count, "mfn_list": mfn_list}
    # The built-in guest is told what its own protocol has, besides what every domain is.
    return start_info_page(hv, fields, cmdline)


def start_info_page(hv: Hypervisor, fields: Mapping[str, int], cmdline: str) -> bytes:
    """A page with a start_info (xen.h) of these fields, and those that every domain has.

    Raises:
        UsageError: the command line is too long for it.
    """
    bits, domain = hv.abi.bits, hv.domain
    size = len(START_INFO.place("cmd_line", bits).type)
    page = START_INFO.over(bytearray(PAGE_SIZE), bits)
    page["magic"] = f"xen-3.0-x86_{'64' if bits == 64 else '32p'}".encode()
    page["nr_pages"], page["shared_info"] = domain.nr_pages, domain.shared_info
    page["cmd_line"] = command_line(cmdline, size - 1)
    for name, value in fields.items():
        page[name] = value
    return bytes(page.raw)


def p2m_list(hv: Hypervisor) -> bytes:
    """The pseudo-physical to machine list: one unsigned long a frame."""
    code = "Q" if hv.abi.bits == 64 else "I"
    return struct.pack(f"<{hv.domain.nr_pages}{code}", *hv.domain.p2m)


def prepare_cpu(hv: Hypervisor, cpu: Vcpu) -> None:
    """Paging on, Xen's descriptor table loaded. The vCPU is still at level 0 with no page table of its own."""
    bits = hv.abi.bits
    cpu.cr4 = _CR4
    # All vCPUs begin with the first one's root, and get their own by VCPUOP_initialise.
    cpu.cr3 = hv.domain.vcpus[0].guest_table << PAGE_SHIFT
    # NX in both widths; long mode and syscall in one.
    cpu.set_msr(MSR_EFER, 1 << 11 | (1 << 8 | 1 if bits == 64 else 0))
    cpu.cr0 = _CR0
    # The limit is the last byte of Xen's own page, which follows the guest's fourteen.
    cpu.set_table("gdtr", window(hv, cpu.index), ((FIRST_RESERVED_GDT_PAGE + 1) << PAGE_SHIFT) - 1)


def start(hv: Hypervisor, cpu: Vcpu, entry: int, argument: int) -> None:
    """Put vCPU 0 at the guest's entry, in kernel mode, with an address in rsi."""
    state = hv.state(cpu)
    state.initialised = state.up = True
    runstate.change(hv, cpu.index, runstate.RUNNING)
    if hv.abi.bits == 64:
        cpu.set_segments(3, FLAT_KERNEL_CS64, FLAT_KERNEL_SS64)
        data = FLAT_KERNEL_SS64
    else:
        cpu.set_segments(1, FLAT_RING1_CS32, FLAT_RING1_DS32)
        data = FLAT_RING1_DS32
    for name in ("ds", "es", "fs", "gs"):
        # A null selector in 64-bit mode, flat data in 32-bit (``arch_set_info_guest``).
        cpu.load_segment(name, data if hv.abi.bits == 32 else 0)
    cpu.rflags = 1 << 9  # IF, as Linux's startup_xen finds it
    cpu.set("rsi", argument)
    if hv.abi.bits == 64:
        raise_kernel(hv, cpu)
    cpu.rip = entry
