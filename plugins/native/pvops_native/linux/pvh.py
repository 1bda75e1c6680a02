"""Entering a kernel directly in 32-bit protected mode, for images that are no Linux and say where.

Source: Xen's docs/misc/pvh.pandoc ("x86/HVM direct boot ABI") and public/arch-x86/hvm/start_info.h: the note
XEN_ELFNOTE_PHYS32_ENTRY, ``struct hvm_start_info`` version 1, and the processor's state at entry.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_native.linux.parameters import RAM, RESERVED

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine import PhysicalMemory
    from pvops_native.linux.parameters import BootParameters

START_INFO: Final = 0x92000
_MODULES: Final = START_INFO + 0x40
_MEMORY_MAP: Final = START_INFO + 0x80
_MAGIC: Final = 0x336EC578
_PHYS32_ENTRY: Final = 18
_TYPES: Final = {RAM: 1, RESERVED: 2}
"""XEN_HVM_MEMMAP_TYPE_*: the same numbers as e820's."""


def entry_of(image: KernelImage) -> int | None:
    """Physical address of the entry; None where the image has none, or is a Linux, which has better ones.

    Raises:
        ImageError: the note is too short for an address.
    """
    if image.release:
        return None
    note = next((note for note in image.notes if note.owner == "Xen" and note.type == _PHYS32_ENTRY), None)
    if note is None:
        return None
    if len(note.data) < 4:
        raise image.error(f"has {len(note.data)} bytes; an address has 4 or 8", field="note PHYS32_ENTRY")
    return int.from_bytes(note.data[:8], "little") & 0xFFFF_FFFF


def write_start_info(memory: PhysicalMemory, parameters: BootParameters) -> None:
    """Write ``hvm_start_info`` with its lists of modules (the ramdisk) and of memory."""
    modules = int(bool(parameters.initrd))
    ranges = parameters.memory_map
    head = struct.pack("<IIII", _MAGIC, 1, 0, modules)
    places = (_MODULES if modules else 0, parameters.cmdline, parameters.rsdp, _MEMORY_MAP)
    memory.write(START_INFO, head + struct.pack("<QQQQII", *places, len(ranges), 0))
    memory.write(_MODULES, struct.pack("<QQQQ", parameters.initrd, parameters.initrd_size, 0, 0))
    entries = (struct.pack("<QQII", each.start, each.end - each.start, _TYPES[each.type], 0) for each in ranges)
    memory.write(_MEMORY_MAP, b"".join(entries))
