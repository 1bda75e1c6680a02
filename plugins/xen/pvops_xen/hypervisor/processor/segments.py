"""The GDT and LDT that the CPU really uses: the guest's pages, mapped with Xen's own last page in a per-vCPU window."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import FIRST_RESERVED_GDT_PAGE, PAGE_SHIFT
from pvops_xen.hypervisor.memory import entries as pte

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

WINDOW_PAGES: Final = 32  # 16 for the GDT, 16 for the LDT (GDT_LDT_VCPU_SHIFT)
LDT_PAGE: Final = 16
WINDOW_SIZE: Final = WINDOW_PAGES << PAGE_SHIFT
# Supervisor pages, read-only: a guest's kernel runs in ring 1, which is a supervisor to the MMU.
_FLAGS: Final = pte.P | pte.A

# Xen's own descriptors, from selector 0xe008 on: ring-0 code and data, then what a guest may load (xen-x86_*.h).
XEN_DESCRIPTORS64: Final = (
    0x00AF_9B00_0000_FFFF,  # ring 0, 64-bit code
    0x00CF_9300_0000_FFFF,  # ring 0, data
    0,
    0x00CF_FB00_0000_FFFF,  # ring 3, 32-bit code
    0x00CF_F300_0000_FFFF,  # ring 3, data
    0x00AF_FB00_0000_FFFF,  # ring 3, 64-bit code
)
XEN_DESCRIPTORS32: Final = (
    0x00CF_9B00_0000_FFFF,  # ring 0, code
    0x00CF_9300_0000_FFFF,  # ring 0, data
    0x00CF_BB00_0000_FFFF,  # ring 1, code: the guest's kernel
    0x00CF_B300_0000_FFFF,  # ring 1, data
    0x00CF_FB00_0000_FFFF,  # ring 3, code
    0x00CF_F300_0000_FFFF,  # ring 3, data
)


def xen_gdt_page(bits: int) -> bytes:
    """The page of descriptors that Xen keeps behind the guest's own."""
    descriptors = XEN_DESCRIPTORS64 if bits == 64 else XEN_DESCRIPTORS32
    return struct.pack(f"<8x{len(descriptors)}Q", *descriptors).ljust(1 << PAGE_SHIFT, b"\0")


def window(hv: Hypervisor, index: int) -> int:
    """Virtual address of a vCPU's window."""
    return hv.descriptor_base + index * WINDOW_SIZE


def map_slot(hv: Hypervisor, index: int, page: int, mfn: int) -> None:
    """Put a frame (0: nothing) into a page of a vCPU's window."""
    # A page table has 512 entries: with many vCPUs there are several such tables.
    number = index * WINDOW_PAGES + page
    entry = (mfn << PAGE_SHIFT | _FLAGS) if mfn else 0
    hv.memory.set_u64(hv.perdomain_l1[number // 512] + number % 512 * 8, entry)


def install_gdt(hv: Hypervisor, cpu: Vcpu, frames: list[int]) -> None:
    """Map a list of GDT frames for a vCPU and flush what the CPU may remember of the old ones."""
    # Pages behind the guest's own are emptied: a descriptor of an older table must not stand there.
    for page in range(FIRST_RESERVED_GDT_PAGE):
        map_slot(hv, cpu.index, page, frames[page] if page < len(frames) else 0)
    cpu.flush_tlb()
