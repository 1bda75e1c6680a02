"""Builds a domain out of an image: its memory, page tables, start_info and the first vCPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.errors import MachineError
from pvops_core.guests import Kernel
from pvops_xen.domain.notes import ElfNote, XenNotes, read_notes
from pvops_xen.domain.space import MemoryRequest, Plan, pages, plan
from pvops_xen.domain.startinfo import StartOfDay
from pvops_xen.domain.stubs import hypercall_page
from pvops_xen.domain.symtab import bsd_symtab
from pvops_xen.hypervisor import builder
from pvops_xen.hypervisor.abi import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.access import addr_ok
from pvops_xen.hypervisor.events.channels import open_to_host
from pvops_xen.hypervisor.grants import table as grants
from pvops_xen.hypervisor.grants.state import CONSOLE_REF, XENSTORE_REF
from pvops_xen.xenstore.toolstack import DomainFacts, write_domain

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.platform import XenPlatform

E820_RAM: Final = 1
_EXECUTE: Final = 1


def load_kernel(platform: XenPlatform) -> None:
    """Build the platform's domain of its guest, an image with Xen notes; errors as of :func:`build_domain`."""
    kernel = platform.guest
    assert isinstance(kernel, Kernel), "of boot protocol kernel"
    build_domain(platform.hv, kernel)


def build_domain(hv: Hypervisor, kernel: Kernel) -> None:
    """Load an image into the domain's memory and put vCPU 0 at its entry.

    Raises:
        ImageError: its notes or segments are not those of a guest that can be built.
        MachineError: it does not fit into the domain.
    """
    image = kernel.image
    notes = read_notes(image)
    word = image.pointer_size
    nr_pages = hv.domain.nr_pages
    _check_segments(image, notes, nr_pages)
    first, last = _extent(image, notes)
    symbols = bsd_symtab(image) if notes.bsd_symtab else b""
    end = (last + word - 1) & -word
    layout = plan(
        MemoryRequest(
            bits=8 * word,
            virt_base=notes.virt_base,
            kernel_end=pages(end + len(symbols) - notes.virt_base),
            initrd_pages=pages(len(kernel.initrd)),
            initrd_mapped=not notes.unmapped_initrd,
            p2m_pages=pages(nr_pages * word),
            p2m_address=_p2m_address(image, notes),
            memory=nr_pages,
        )
    )
    _check_areas(hv, image, notes, layout)
    _load(hv, image, notes)
    builder.write_physical(hv, end - notes.virt_base, symbols)
    if notes.hypercall_page is not None:
        if not first <= notes.hypercall_page < last or notes.hypercall_page & PAGE_MASK:
            raise image.error(
                f"is at {notes.hypercall_page:#x}, no page of the kernel", field=notes.field(ElfNote.HYPERCALL_PAGE)
            )
        builder.write_physical(hv, notes.hypercall_page - notes.virt_base, hypercall_page(hv.abi.bits))
    builder.write_physical(hv, layout.initrd << PAGE_SHIFT, kernel.initrd)
    builder.write_physical(hv, layout.p2m << PAGE_SHIFT, builder.p2m_list(hv))
    for pfn, table in layout.space.contents(np.asarray(hv.domain.p2m, dtype=np.uint64)).items():
        builder.write_physical(hv, pfn << PAGE_SHIFT, table)
    _services(hv, layout)
    start = StartOfDay(hv, notes, layout, kernel)
    builder.write_physical(hv, layout.start_info << PAGE_SHIFT, start.pack())
    builder.pin_root(hv, hv.domain.p2m[layout.tables])
    hv.domain.e820 = ((0, nr_pages << PAGE_SHIFT, E820_RAM),)
    if len(hv.machine.vcpus) > 1:
        hv.validator.text = _text(hv, image, notes)
    _enter(hv, notes, layout)


def _text(hv: Hypervisor, image: KernelImage, notes: XenNotes) -> dict[int, int]:
    """Machine frame and virtual address of each page of the executable segments."""
    return {
        hv.domain.p2m[at >> PAGE_SHIFT]: notes.virt_base + at
        for segment in image.segments
        if segment.flags & _EXECUTE
        for at in range(
            segment.physical - notes.paddr_offset & ~PAGE_MASK,
            segment.physical - notes.paddr_offset + segment.memory_size,
            PAGE_SIZE,
        )
    }


def _check_segments(image: KernelImage, notes: XenNotes, nr_pages: int) -> None:
    """Every segment lies where the domain can have memory."""
    if not image.segments:
        raise image.error("has nothing to load", field="program headers")
    limit = 1 << 8 * image.pointer_size
    for number, segment in enumerate(image.segments):
        start = segment.physical + notes.offset
        if start < notes.virt_base or start + segment.memory_size > limit:
            raise image.error(
                f"would lie at {start & limit - 1:#x}, below its base of {notes.virt_base:#x} or beyond the end",
                field=f"segment {number}",
            )
        end = segment.physical - notes.paddr_offset + segment.memory_size
        if pages(end) > nr_pages:
            raise MachineError(
                f"segment {number} of the kernel reaches to {end >> 20} MiB; the guest has {nr_pages >> 8} MiB"
            )


def _extent(image: KernelImage, notes: XenNotes) -> tuple[int, int]:
    """First virtual address of the loaded image and the first after it."""
    first = min(segment.physical for segment in image.segments) + notes.offset
    last = max(segment.physical + segment.memory_size for segment in image.segments) + notes.offset
    if not first <= notes.entry < last:
        raise image.error(
            f"is {notes.entry:#x}, outside the image at {first:#x} to {last:#x}", field=notes.field(ElfNote.ENTRY)
        )
    return first, last


def _check_areas(hv: Hypervisor, image: KernelImage, notes: XenNotes, layout: Plan) -> None:
    """What is mapped lies in the guest's part of the address space, and nothing is mapped twice."""
    kernel, *others = layout.space.areas
    for area, kind in ((kernel, ElfNote.VIRT_BASE), *((area, ElfNote.INIT_P2M) for area in others)):
        if not addr_ok(hv.abi, area.va, area.end - area.va):
            raise image.error(
                f"puts {area.count} pages at {area.va:#x}, where a guest has no addresses", field=notes.field(kind)
            )
        if area is not kernel and area.va < kernel.end and kernel.va < area.end:
            raise image.error(f"puts the p2m list at {area.va:#x}, into the kernel", field=notes.field(kind))


def _p2m_address(image: KernelImage, notes: XenNotes) -> int | None:
    """Where the p2m list goes: an unaligned address, or one above the kernel's base, is as good as none."""
    where = notes.init_p2m
    if where is None or image.pointer_size == 4 or where >= notes.virt_base or where & PAGE_MASK:
        return None
    return where


def _load(hv: Hypervisor, image: KernelImage, notes: XenNotes) -> None:
    if hv.memory.replaced:
        return
    for segment in image.segments:
        start = segment.physical - notes.paddr_offset
        builder.write_physical(hv, start, image.data[segment.offset : segment.offset + segment.file_size])


def _services(hv: Hypervisor, layout: Plan) -> None:
    """Console and xenstore: their pages, channels and grants, and what xenstore says of the domain.

    Raises:
        MachineError: the domain may not have so many event channels.
    """
    domain, p2m = hv.domain, hv.domain.p2m
    hv.store.open(hv.memory, p2m[layout.xenstore] << PAGE_SHIFT, _open(hv, "xenstore"))
    if hv.console.ring:
        hv.console.page = p2m[layout.console] << PAGE_SHIFT
        hv.console.port = _open(hv, "console")
        grants.seed(hv, CONSOLE_REF, p2m[layout.console])
    grants.seed(hv, XENSTORE_REF, p2m[layout.xenstore])
    facts = DomainFacts(
        domid=domain.domid,
        name="pvops",
        memory_kib=domain.nr_pages << PAGE_SHIFT - 10,
        vcpus=len(domain.vcpus),
        store=(hv.store.port, p2m[layout.xenstore]),
        console=(hv.console.port, p2m[layout.console]) if hv.console.ring else None,
    )
    write_domain(hv.store.daemon, facts)


def _open(hv: Hypervisor, service: str) -> int:
    port = open_to_host(hv, service)
    if port < 0:
        raise MachineError(
            f"the guest may have {hv.domain.max_port} event channels, and none is left for its {service}"
        )
    return port


def _enter(hv: Hypervisor, notes: XenNotes, layout: Plan) -> None:
    for cpu in hv.machine.vcpus:
        builder.prepare_cpu(hv, cpu)
        if cpu.index:
            cpu.halt()
    first = hv.machine.vcpus[0]
    builder.start(hv, first, notes.entry, notes.virt_base + (layout.start_info << PAGE_SHIFT))
    first.rsp = notes.virt_base + (layout.stack + 1 << PAGE_SHIFT)
