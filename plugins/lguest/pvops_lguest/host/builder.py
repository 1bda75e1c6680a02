"""Puts a guest together: memory divided, image loaded, first page tables made, vCPU at the entry in ring 1.

The host's share lies above the guest's: one frame for the descriptors, one for the page table that maps them at
the top of every address space (the switcher's place), the rest for shadow tables.
Source: Documentation/lguest/lguest.c for the launcher's part, drivers/lguest/core.c for the host's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from pvops_core.backends import Settings, clock_start, cpu_model, setting
from pvops_core.errors import MachineError
from pvops_core.guests import BootInfo, BuiltinGuest, Kernel, PlatformKind
from pvops_core.x86 import CR4_PAE, EFER_NXE, MSR_EFER
from pvops_lguest.host.abi import ABIS
from pvops_lguest.host.frames import FramePool
from pvops_lguest.host.generation import choose_abi
from pvops_lguest.host.memory import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, GuestMemory
from pvops_lguest.host.paging import ACCESSED, DIRTY, PRESENT, RW, THREE_LEVELS, USER, paging_of
from pvops_lguest.host.segments import GDT_ENTRIES, GUEST_PL, KERNEL_CS, KERNEL_DS, Segments
from pvops_lguest.host.shadow import ShadowTables
from pvops_lguest.host.state import HostState

if TYPE_CHECKING:
    from pvops_core.guest import Guest
    from pvops_core.machine import Machine, PhysicalMemory, Vcpu
    from pvops_lguest.platform import LguestPlatform

DEVICE_AREA = 256 * PAGE_SIZE
"""Bytes above a kernel's memory for its devices (DEVICE_PAGES of Documentation/lguest/lguest.c)."""

HOST_AREA = 2 << 20
"""Bytes of machine memory above the guest's and its devices'."""

PAGE_OFFSET = 0xC0000000
"""Where a kernel begins until it says otherwise: CONFIG_PAGE_OFFSET, the usual one."""

LATEST = (1 << 32) - 1
"""The host tells the time as a 32-bit timespec."""

TICK_HZ = 100

TSC_KHZ = 1_000_000
"""The machine's time-stamp counter counts nanoseconds of virtual time."""

_CR0 = 0x80010033  # PG, WP, NE, ET, MP, PE: the host's own
# lguest_arch_setup_regs(): real interrupts stay on, since irq_enabled stands for the guest's flag; bit 1 is always
# set.
_EFLAGS = 0x202
# The launcher leaves ACCESSED and DIRTY to be set later; with them set, running code changes nothing here.
_GUEST_TABLE_FLAGS = PRESENT | RW | USER | ACCESSED | DIRTY


class _VcpuMmu:
    """The shadow's view of a vCPU."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu

    def load(self, cr3: int) -> None:
        self._vcpu.cr3 = cr3

    def flush(self, va: int | None) -> None:
        self._vcpu.flush_tlb(va)


@attrs.frozen(kw_only=True)
class LguestSettings(Settings):
    """What may be chosen of an lguest host."""

    abi: str = setting("", "ABI between guest and host; by default what the guest's image shows", choices=("", *ABIS))
    disk: str = setting("", "file that a kernel sees as its disk, read-only", form="a file's name")
    rtc: int = clock_start(most=LATEST)
    cpu: str = cpu_model()


def make_state(
    machine: Machine,
    guest: Guest,
    settings: LguestSettings,
    console: tuple[bytearray, Callable[[bytes], None]],
    choose: Callable[[int], int],
) -> HostState:
    """Divide memory and make the host's parts for a guest that is not loaded yet.

    Args:
        machine: the machine; the top ``HOST_AREA`` bytes of its memory become the host's.
        guest: the guest.
        settings: the platform's.
        console: the guest's text, and what puts more there.
        choose: draws a number below its argument.

    Raises:
        UsageError: an option is wrong.
        MachineError: there is no memory left for a guest.
    """
    # Checked before anything is divided: a smaller machine would give the guest memory of negative size.
    needed = HOST_AREA + DEVICE_AREA
    if machine.memory.size <= needed:
        raise MachineError(f"lguest's host alone needs {needed} bytes of memory, and there are {machine.memory.size}")
    is_kernel = guest.boot_protocol == Kernel.boot_protocol
    ram = settings.memory if is_kernel and settings.memory else machine.memory.size - needed
    # Only a kernel may map what lies above its memory: its devices, and the frames of tools behind them.
    limit = machine.memory.size - HOST_AREA if is_kernel else ram
    abi, paging = choose_abi(guest, settings.abi), paging_of(machine.kind)
    abi = abi.with_pae() if paging is THREE_LEVELS else abi
    memory = GuestMemory(machine.memory, limit)
    frames = FramePool(machine.memory, (machine.memory.size - HOST_AREA) >> PAGE_SHIFT, HOST_AREA >> PAGE_SHIFT)
    segments = Segments(machine.memory, memory, _frame(frames))
    shadow = ShadowTables(
        machine.memory,
        memory,
        frames,
        _VcpuMmu(machine.vcpus[0]),
        paging,
        kernel_address=getattr(guest, "kernel_base", PAGE_OFFSET),
        choose=choose,
        refuses_pwt=abi.refuses_pwt,
    )
    clock, epoch = machine.clock, settings.rtc
    state = HostState(
        abi=abi,
        memory=memory,
        frames=frames,
        shadow=shadow,
        segments=segments,
        output=console[0],
        emit=console[1],
        ram=ram,
        wallclock=lambda: epoch * 1_000_000_000 + clock.ns,
        tsc_khz=TSC_KHZ,
    )
    state.switcher_entry = _map_switcher(machine.memory, frames, segments)
    return state


def _frame(frames: FramePool) -> int:
    pa = frames.take()
    if pa is None:
        raise MachineError("the host's area has no frame left")
    return pa


def _map_switcher(memory: PhysicalMemory, frames: FramePool, segments: Segments) -> int:
    """Make the page table of the host's own part, which shows the CPU its descriptors; gives its directory entry."""
    table = _frame(frames)
    # Present but not writable, not for users: what ring 1 may read and must not change are its own descriptors.
    memory.set_u32(table, segments.pa | PRESENT | ACCESSED)
    # No USER: ring 3 sees nothing of it, while ring 1 counts as supervisor (SDM volume 3, 4.6).
    return table | PRESENT | RW | ACCESSED | DIRTY


def load_builtin(platform: LguestPlatform) -> None:
    """Load a built-in guest as its boot protocol says: image, boot information, first page tables, in this order.

    Raises:
        MachineError: it does not fit below the host's share.
    """
    guest, state = platform.guest, platform.state
    assert isinstance(guest, BuiltinGuest), "of boot protocol builtin"
    memory = state.memory
    info_pa = load_image(memory, guest)
    gpgdir, end = make_linear_tables(memory, info_pa + PAGE_SIZE, guest.kernel_base)
    info = BootInfo(
        platform=PlatformKind.LGUEST,
        nr_pages=memory.limit >> PAGE_SHIFT,
        ncpus=1,
        tick_hz=TICK_HZ,
        root=guest.kernel_base + gpgdir,
        table_pfn=gpgdir >> PAGE_SHIFT,
        table_frames=(end - gpgdir) >> PAGE_SHIFT,
        first_pfn=end >> PAGE_SHIFT,
        features=platform.features,
        command_line=guest.cmdline,
    )
    memory.write(info_pa, info.pack())
    enter_guest(platform.machine.vcpus[0], state, gpgdir, guest.entry, guest.kernel_base + info_pa)


def load_image(memory: GuestMemory, guest: BuiltinGuest) -> int:
    """Copy the image to its physical place; gives the first free byte after it.

    Raises:
        MachineError: it does not fit below the host's share.
    """
    end = 0
    for segment in guest.image.segments:
        pa = segment.address - guest.kernel_base
        if pa < 0 or pa + segment.memory_size > memory.limit:
            raise MachineError(f"a guest of {pa + segment.memory_size:#x} bytes does not fit into {memory.limit:#x}")
        # A segment of a file may be shorter in it than in memory: read() fills .bss with zeros.
        memory.write(pa, guest.image.read(segment.address, segment.memory_size))
        end = max(end, pa + segment.memory_size)
    # Rounded up: the boot information behind it is a page's.
    return (end + PAGE_MASK) & ~PAGE_MASK


def make_linear_tables(memory: GuestMemory, at: int, kernel_base: int) -> tuple[int, int]:
    """Guest page tables that map all of the guest's memory at ``kernel_base``.

    Args:
        memory: the guest's memory.
        at: where they begin, page aligned: the directory first, then the tables.
        kernel_base: virtual address of guest-physical 0, a multiple of 4 MiB.

    Returns:
        Guest-physical address of the directory, and the first byte after the tables.

    Raises:
        MachineError: they do not fit.
    """
    pages = memory.limit >> PAGE_SHIFT
    tables = (pages + 1023) // 1024
    end = at + (1 + tables) * PAGE_SIZE
    if end > memory.limit:
        raise MachineError(f"page tables up to {end:#x} do not fit into {memory.limit:#x} bytes")
    # Zeros first: an entry that is not set must be absent, whatever the machine's memory held.
    memory.write(at, bytes(end - at))
    for table in range(tables):
        pa = at + (1 + table) * PAGE_SIZE
        memory.set_u32(at + ((kernel_base >> 22) + table) * 4, pa | _GUEST_TABLE_FLAGS)
        for entry in range(min(1024, pages - table * 1024)):
            memory.set_u32(pa + entry * 4, (table * 1024 + entry) << PAGE_SHIFT | _GUEST_TABLE_FLAGS)
    return at, end


def enter_guest(vcpu: Vcpu, state: HostState, gpgdir: int, entry: int, esi: int) -> None:
    """Stand the vCPU at the guest's entry: shadow tables loaded, ring 1, flat segments, interrupts really on.

    Args:
        vcpu: the boot CPU, in ring 0 without paging.
        state: the host.
        gpgdir: guest-physical address of the guest's first page directory.
        entry: guest-virtual address to start at.
        esi: what the guest finds in esi.
    """
    # In this order: the directory must be loaded before preload() can fill it, and both before the first fetch.
    state.shadow.start(gpgdir, state.switcher_entry)
    state.shadow.preload()
    vcpu.set_table("gdtr", state.shadow.paging.switcher, GDT_ENTRIES * 8 - 1)
    if state.shadow.paging is THREE_LEVELS:
        vcpu.cr4 |= CR4_PAE
        # PAE kernels use NX where cpuid says so, and the shadow's entries carry the guest's bit 63 as it is.
        vcpu.set_msr(MSR_EFER, EFER_NXE)
    vcpu.cr0 = _CR0
    # cs and ss together, for SS's level must be the CPL's (SDM volume 3, 5.7).
    vcpu.set_segments(GUEST_PL, KERNEL_CS, KERNEL_DS)
    for name in ("ds", "es"):
        vcpu.load_segment(name, KERNEL_DS)
    # esi has the boot parameters' address (lguest_arch_setup_regs()).
    vcpu.batch("esi", "eflags", "eip").write(esi, _EFLAGS, entry)
