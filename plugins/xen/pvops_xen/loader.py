"""Puts the built-in guest into the domain: image, information pages, page tables, and the first vCPU at its entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import builder
from pvops_xen.hypervisor.abi import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from pvops_xen.platform import XenPlatform

TICK_HZ: Final = 100


def load_builtin(platform: XenPlatform) -> None:
    """Image, boot_info, start_info, p2m list and page tables, in this order in pseudo-physical memory.

    Raises:
        MachineError: they do not fit.
    """
    from pvops_core.guests import BootInfo, BuiltinGuest, PlatformKind  # noqa: PLC0415 - imports only what a run needs

    hv, guest = platform.hv, platform.guest
    assert isinstance(guest, BuiltinGuest), "of boot protocol builtin"
    base = guest.kernel_base
    end = 0
    for segment in guest.image.segments:
        data = guest.image.data[segment.offset : segment.offset + segment.file_size]
        # Segments may ask for more memory than they bring: the rest is zeros (bss).
        builder.write_physical(hv, segment.physical, data.ljust(segment.memory_size, b"\0"))
        end = max(end, segment.physical + segment.memory_size)
    # In this order, each on a page of its own: what the guest is told comes after its image.
    boot_info = (end + PAGE_SIZE - 1) >> PAGE_SHIFT
    start_info = boot_info + 1
    mfn_list = start_info + 1
    p2m = builder.p2m_list(hv)
    first_table = mfn_list + ((len(p2m) + PAGE_SIZE - 1) >> PAGE_SHIFT)
    builder.write_physical(hv, mfn_list << PAGE_SHIFT, p2m)
    tables = builder.build_tables(hv, base, first_table)
    platform.initial_tables = tables
    page = builder.start_info(
        hv,
        tables,
        pt_base=base + (tables.first_pfn << PAGE_SHIFT),
        mfn_list=base + (mfn_list << PAGE_SHIFT),
        cmdline=guest.cmdline,
    )
    builder.write_physical(hv, start_info << PAGE_SHIFT, page)
    info = BootInfo(
        platform=PlatformKind.XEN,
        nr_pages=hv.domain.nr_pages,
        ncpus=len(platform.machine.vcpus),
        tick_hz=TICK_HZ,
        root=base + (tables.first_pfn << PAGE_SHIFT),
        table_pfn=tables.first_pfn,
        table_frames=tables.count,
        first_pfn=tables.first_pfn + tables.count,
        start_info=base + (start_info << PAGE_SHIFT),
        shared_info=hv.domain.shared_info,
        mfn_list=base + (mfn_list << PAGE_SHIFT),
        features=platform.features,
        command_line=guest.cmdline,
    )
    builder.write_physical(hv, boot_info << PAGE_SHIFT, info.pack())
    for cpu in platform.machine.vcpus:
        # All vCPUs get the processor's state, and only the first one runs.
        builder.prepare_cpu(hv, cpu)
        if cpu.index:
            cpu.halt()
    builder.start(hv, platform.machine.vcpus[0], guest.entry, base + (boot_info << PAGE_SHIFT))
