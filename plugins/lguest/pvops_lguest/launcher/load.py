"""Puts a real kernel into the guest's memory and its vCPU at the entry, as lguest's launcher did.

Source: main(), map_elf(), load_initrd() and setup_pagetables() of Documentation/lguest/lguest.c (2.6.23, 2.6.24), and
setup_pagetables() of drivers/lguest/page_tables.c (2.6.32), for the host made the tables later on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.errors import MachineError
from pvops_core.guests import Kernel
from pvops_lguest.host import builder
from pvops_lguest.host.abi import Descriptors
from pvops_lguest.host.memory import PAGE_SHIFT, PAGE_SIZE
from pvops_lguest.host.paging import PRESENT, RW, THREE_LEVELS, USER
from pvops_lguest.launcher.bus import LguestBus
from pvops_lguest.launcher.devices import VirtioConsole, VirtioDisk
from pvops_lguest.launcher.disk import Disk
from pvops_lguest.launcher.parameters import CMDLINE, CMDLINE_MOST, boot_parameters
from pvops_lguest.launcher.virtio import VirtioBus

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_lguest.host.memory import GuestMemory
    from pvops_lguest.host.state import HostState
    from pvops_lguest.platform import LguestPlatform

SIGNATURE: Final = b"GenuineLguest"
"""In a kernel of 2.6.23, right before the code where the launcher starts it (lguest_asm.S)."""

_TABLE_FLAGS: Final = PRESENT | RW | USER


def load_kernel(platform: LguestPlatform) -> None:
    """Load the kernel, its ramdisk and its first page tables; lay out its devices; stand the vCPU at its entry.

    Raises:
        ImageError: the image has no segments, no lguest entry, or segments that lie in no line.
        MachineError: it does not fit into the guest's memory.
        UsageError: the disk's file cannot be read.
    """
    kernel, state = platform.guest, platform.state
    assert isinstance(kernel, Kernel), "of boot protocol kernel"
    memory, ram = state.memory, state.ram
    offset, end = _load_segments(state, kernel.image)
    state.shadow.kernel_address = offset
    initrd = _load_initrd(memory, kernel.initrd, ram)
    bases = _mapped_at(state, offset)
    tables = _make_tables(state, initrd, bases)
    if tables[1] < end:
        raise MachineError(f"kernel, ramdisk and page tables do not fit into {ram >> 20} MiB of memory")
    cmdline = kernel.cmdline.encode()
    if len(cmdline) > CMDLINE_MOST:
        raise MachineError(f"a command line of {len(cmdline)} bytes is longer than the {CMDLINE_MOST} that Linux takes")
    memory.write(0, boot_parameters(ram, initrd if kernel.initrd else 0, len(kernel.initrd)))
    memory.write(CMDLINE, cmdline + b"\0")
    _attach_devices(platform)
    builder.enter_guest(platform.machine.vcpus[0], state, tables[0], _entry(state, kernel.image, offset), 0)


def _load_segments(state: HostState, image: KernelImage) -> tuple[int, int]:
    """Copy the segments to their physical places; how far above these they are linked, and the first byte behind."""
    memory, ram = state.memory, state.ram
    if not image.segments:
        raise image.error("has nothing to load", field="program headers")
    # page_offset of map_elf(): one offset for the whole kernel, which the host needs to know its addresses by.
    offset, end = image.segments[0].address - image.segments[0].physical, 0
    for number, segment in enumerate(image.segments):
        if segment.address - segment.physical != offset:
            message = f"lies {segment.address - segment.physical:#x} above its physical place, others {offset:#x}"
            raise image.error(message, field=f"segment {number}")
        # Page 0 has boot parameters, page 1 the command line.
        if segment.physical < CMDLINE + PAGE_SIZE:
            message = f"is to lie at {segment.physical:#x}, where the launcher puts the boot parameters"
            raise image.error(message, field=f"segment {number}")
        if segment.physical + segment.memory_size > ram:
            raise MachineError(
                f"the kernel reaches to {segment.physical + segment.memory_size:#x}; "
                f"{ram >> 20} MiB of memory are not enough"
            )
        # Zeros behind the file's part need no write: a machine's memory begins as such.
        memory.write(segment.physical, image.data[segment.offset : segment.offset + segment.file_size])
        end = max(end, segment.physical + segment.memory_size)
    # The kernel's first directory entry must begin where its memory does, or the linear mapping would be skewed.
    if offset <= 0 or offset % (1 << state.shadow.paging.uppers[0].shift):
        raise image.error(f"is linked {offset:#x} above its physical place", field="program headers")
    return offset, end


def _load_initrd(memory: GuestMemory, initrd: bytes, ram: int) -> int:
    """Copy the ramdisk to the top of memory; the page that it begins in, or the top itself."""
    # load_initrd() puts it at the end, for the kernel frees it as whole pages.
    start = (ram - len(initrd)) & -PAGE_SIZE
    if start < CMDLINE + PAGE_SIZE:
        raise MachineError(f"a ramdisk of {len(initrd) >> 10} KiB does not fit beside the kernel")
    memory.write(start, initrd)
    return start


def _mapped_at(state: HostState, offset: int) -> tuple[int, ...]:
    """Where the first page tables show memory.

    2.6.23 starts where it is linked; from 2.6.24 on kernels start where they lie and move up, by entries that they copy
    where the host tells them of the directory (``pgdir``) or, later, that are there already.
    """
    if state.abi.descriptors is Descriptors.BUS:
        # 2.6.23 starts at its linked address; later ones run at their physical place until lguest_entry jumps.
        return (offset,)
    return (0, offset)


def _make_tables(state: HostState, top: int, bases: tuple[int, ...]) -> tuple[int, int]:
    """Tables of all of memory just under ``top``: the directory, below it those of the last level, then PAE's others.

    Gives the guest-physical addresses of the directory and of the lowest table.
    """
    memory, paging, pages = state.memory, state.shadow.paging, state.ram >> PAGE_SHIFT
    # Rounded up: the last table may map beyond memory, with empty entries.
    count = -(-pages // paging.entries)
    directory = top - PAGE_SIZE
    linear = directory - count * PAGE_SIZE
    # A page more: PAE's middle table.
    first = linear - PAGE_SIZE if paging is THREE_LEVELS else linear
    if first < CMDLINE + PAGE_SIZE:
        raise MachineError(f"page tables do not fit into {state.ram >> 20} MiB of memory")
    entry = np.dtype(f"<u{paging.size}").type
    entries = np.zeros(count * paging.entries, dtype=entry)
    # All writable and for users, as setup_pagetables() has it: the kernel replaces them at its start.
    entries[:pages] = np.arange(pages, dtype=entry) << entry(PAGE_SHIFT) | entry(_TABLE_FLAGS)
    memory.write(linear, entries.tobytes())
    memory.write(directory, bytes(PAGE_SIZE))
    upper = np.arange(linear, directory, PAGE_SIZE, dtype=entry) | entry(_TABLE_FLAGS)
    if paging is THREE_LEVELS:
        # One table in the middle, for 1 GiB, which both places share.
        memory.write(first, upper[: paging.entries].tobytes().ljust(PAGE_SIZE, b"\0"))
        upper = np.array([first | PRESENT], dtype=entry)
    shift, below_switcher = paging.uppers[0].shift, paging.switcher >> paging.uppers[0].shift
    for base in bases:
        start = base >> shift
        # Memory above what fits below the switcher is not mapped; the kernel calls it high memory.
        most = max(below_switcher - start, 1)
        memory.write(directory + paging.size * start, upper[:most].tobytes())
    return directory, first


def _attach_devices(platform: LguestPlatform) -> None:
    """The devices of the kernel's generation, in the pages above its memory."""
    state, name = platform.state, platform.settings.disk
    disk = Disk.of_file(name) if name else None
    if state.abi.descriptors is Descriptors.BUS:
        bus = LguestBus(state.memory, state.ram, state.dma, platform.interrupt, disk)
        # SEND_DMA is the only call by which this bus hears of anything.
        state.devices, state.dma_sent = bus, bus.sent
        return
    console = VirtioConsole(platform.emit, platform.interrupt)
    others = [VirtioDisk(disk, platform.interrupt)] if disk else []
    state.devices = VirtioBus(state.memory, state.ram, state.abi.descriptors, console, others)


def _entry(state: HostState, image: KernelImage, offset: int) -> int:
    """Guest-virtual address to start at."""
    if state.abi.descriptors is not Descriptors.BUS:
        return image.entry
    # The signature is wherever the linker put it, so it is searched for (entry_point() of the launcher).
    for segment in image.segments:
        data = image.data[segment.offset : segment.offset + segment.file_size]
        at = data.find(SIGNATURE)
        if at >= 0:
            # Behind it: the kernel's code follows the string with no gap.
            return segment.physical + at + len(SIGNATURE) + offset
    raise image.error(f"has no {SIGNATURE.decode()} to start behind", field="segments")
