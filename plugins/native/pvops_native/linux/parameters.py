"""``struct boot_params``: what a boot loader tells the kernel.

Source: Documentation/arch/x86/zero-page.rst and boot.rst; asm/bootparam.h. The set-up header is written afresh: what
the kernel proper reads of it are the loader's fields, and an ELF image has no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from pvops_core.images.bootparams import BITS, BOOT_PARAMS, E820_ENTRY, RAM

# What a boot sector without a number of its own means: 0 would be 4 too (boot.rst, setup_sects).
_SETUP_SECTORS: Final = 4
_BOOT_FLAG: Final = 0xAA55
# 2.15: acpi_rsdp_addr came with 2.14.
_PROTOCOL: Final = 0x020F
# As in the kernel's own header (arch/x86/boot/header.S).
_INITRD_MAX: Final = 0x7FFF_FFFF
_LOADER: Final = 0xFF
"""A loader without an assigned number."""
_LOADED_HIGH, _CAN_USE_HEAP = 0x01, 0x80
_READ_ONLY_ROOT: Final = 1


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
        entry = E820_ENTRY.at(BITS).form
        table = b"".join(entry.pack(each.start, each.end - each.start, each.type) for each in self.memory_map)
        return BOOT_PARAMS.packed(
            BITS,
            {
                "acpi_rsdp_addr": self.rsdp,
                "e820_entries": len(self.memory_map),
                "e820_table": table,
                "hdr.setup_sects": _SETUP_SECTORS,
                "hdr.root_flags": _READ_ONLY_ROOT,
                "hdr.boot_flag": _BOOT_FLAG,
                "hdr.header": b"HdrS",
                "hdr.version": _PROTOCOL,
                "hdr.type_of_loader": _LOADER,
                "hdr.loadflags": _LOADED_HIGH | _CAN_USE_HEAP,
                "hdr.ramdisk_image": self.initrd,
                "hdr.ramdisk_size": self.initrd_size,
                "hdr.cmd_line_ptr": self.cmdline,
                "hdr.initrd_addr_max": _INITRD_MAX,
                "hdr.cmdline_size": self.cmdline_size,
            },
        )
