"""``struct boot_params``: what a boot loader tells the kernel.

Source: Documentation/arch/x86/zero-page.rst and boot.rst; asm/bootparam.h. The set-up header is written afresh: what
the kernel proper reads of it are the loader's fields, and an ELF image has no other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import attrs

SIZE: Final = 0x1000
_RSDP, _E820_ENTRIES, _HEADER, _E820_TABLE = 0x070, 0x1E8, 0x1F1, 0x2D0
_PROTOCOL: Final = 0x020F
_LOADER: Final = 0xFF
"""A loader without an assigned number."""
_LOADED_HIGH, _CAN_USE_HEAP = 0x01, 0x80
_READ_ONLY_ROOT: Final = 1

RAM, RESERVED = 1, 2


@attrs.frozen
class Range:
    """One entry of the memory map: physical [start, end), of type RAM or RESERVED."""

    start: int
    end: int
    type: int = RAM


@attrs.frozen
class BootParameters:
    """The loader's fields.

    Attributes:
        memory_map: the e820 table, in rising order.
        cmdline: physical address of the command line, NUL-terminated.
        cmdline_size: its bytes without the NUL.
        initrd: physical address of the initial ramdisk; 0 for none.
        initrd_size: its bytes.
        rsdp: physical address of the ACPI root pointer.
    """

    memory_map: Sequence[Range]
    cmdline: int
    cmdline_size: int
    initrd: int
    initrd_size: int
    rsdp: int

    def pack(self) -> bytes:
        """The page."""
        page = bytearray(SIZE)
        struct.pack_into("<Q", page, _RSDP, self.rsdp)
        page[_E820_ENTRIES] = len(self.memory_map)
        for index, each in enumerate(self.memory_map):
            struct.pack_into("<QQI", page, _E820_TABLE + 20 * index, each.start, each.end - each.start, each.type)
        struct.pack_into("<BH", page, _HEADER, 4, _READ_ONLY_ROOT)
        struct.pack_into("<H", page, 0x1FE, 0xAA55)
        struct.pack_into("<4sH", page, 0x202, b"HdrS", _PROTOCOL)
        struct.pack_into("<BB", page, 0x210, _LOADER, _LOADED_HIGH | _CAN_USE_HEAP)
        struct.pack_into("<II", page, 0x218, self.initrd, self.initrd_size)
        struct.pack_into("<II", page, 0x228, self.cmdline, 0x7FFFFFFF)
        struct.pack_into("<I", page, 0x238, self.cmdline_size)
        return bytes(page)
