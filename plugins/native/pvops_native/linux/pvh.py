"""Entering a kernel directly in 32-bit protected mode, for images that are no Linux and say where.

Source: Xen's docs/misc/pvh.pandoc ("x86/HVM direct boot ABI") and public/arch-x86/hvm/start_info.h: the note
XEN_ELFNOTE_PHYS32_ENTRY, ``struct hvm_start_info`` version 1, and the processor's state at entry.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pvops_core.headers import Header
from pvops_core.images.bootparams import BITS, RAM, RESERVED

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine import PhysicalMemory
    from pvops_native.linux.parameters import BootParameters

_HEADER: Final = Header(Path(__file__).with_name("start_info.h"))
START_INFO: Final = 0x92000
# Behind the structure, which has 56 bytes, with one module's 32.
_MODULES: Final = START_INFO + 0x40
_MEMORY_MAP: Final = START_INFO + 0x80
# "xEn3" with bit 7 of its E set.
_MAGIC: Final = 0x336EC578
_PHYS32_ENTRY: Final = 18
_TYPES: Final = {RAM: 1, RESERVED: 2}
"""XEN_HVM_MEMMAP_TYPE_*: the same numbers as e820's."""


def entry_of(image: KernelImage) -> int | None:
    """XEN_ELFNOTE_PHYS32_ENTRY; None where the image has none, or is a Linux, which has better ones.

    Raises:
        ImageError: the note is too short for an address.
    """
    # Linux has a note too, but its 64-bit entry needs no 32-bit start.
    if image.release:
        return None
    note = next((note for note in image.notes if note.owner == "Xen" and note.type == _PHYS32_ENTRY), None)
    if note is None:
        return None
    if len(note.data) < 4:
        raise image.error(f"has {len(note.data)} bytes; an address has 4 or 8", field="note PHYS32_ENTRY")
    # An address of 8 bytes must be below 4 GiB, for the entry is in 32-bit mode.
    return int.from_bytes(note.data[:8], "little") & 0xFFFF_FFFF


def write_start_info(memory: PhysicalMemory, parameters: BootParameters) -> None:
    """Write ``struct hvm_start_info`` with its lists of modules (the ramdisk) and of memory."""
    modules = int(bool(parameters.initrd))
    ranges = parameters.memory_map
    places = {
        "modlist_paddr": _MODULES if modules else 0,
        "cmdline_paddr": parameters.cmdline,
        "rsdp_paddr": parameters.rsdp,
        "memmap_paddr": _MEMORY_MAP,
    }
    counts = {"magic": _MAGIC, "version": 1, "nr_modules": modules, "memmap_entries": len(ranges)}
    memory.write(START_INFO, _HEADER["hvm_start_info"].packed(BITS, places | counts))
    ramdisk = {"paddr": parameters.initrd, "size": parameters.initrd_size}
    memory.write(_MODULES, _HEADER["hvm_modlist_entry"].packed(BITS, ramdisk))
    entry = _HEADER["hvm_memmap_table_entry"].whole("addr", "size", "type").at(BITS).form
    entries = (entry.pack(each.start, each.end - each.start, _TYPES[each.type]) for each in ranges)
    memory.write(_MEMORY_MAP, b"".join(entries))
