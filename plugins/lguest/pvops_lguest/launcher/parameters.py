"""``struct boot_params`` as the launcher fills it, in the page at guest-physical 0.

Source: main() of Documentation/lguest/lguest.c; asm/bootparam.h. The fields are the same in all generations, though
2.6.23 looks at fewer.
"""

from __future__ import annotations

import struct
from typing import Final

from pvops_lguest.host.memory import PAGE_SIZE

CMDLINE: Final = PAGE_SIZE
"""Guest-physical address of the command line."""

CMDLINE_MOST: Final = 2047
"""COMMAND_LINE_SIZE of later kernels with the NUL; those of 2.6.23 cut at 255."""

_E820_ENTRIES, _E820_TABLE = 0x1E8, 0x2D0
_VERSION, _LOADER, _LOADFLAGS = 0x206, 0x210, 0x211
_INITRD, _CMDLINE_PTR, _SUBARCH = 0x218, 0x228, 0x23C
_PROTOCOL: Final = 0x0207
_UNKNOWN_LOADER: Final = 0xFF
_KEEP_SEGMENTS: Final = 0x40
_LGUEST: Final = 1
"""X86_SUBARCH_LGUEST."""
_RAM: Final = 1


def boot_parameters(memory: int, initrd: int, initrd_size: int) -> bytes:
    """The page.

    Args:
        memory: bytes of the guest's memory, which is in one piece.
        initrd: guest-physical address of the initial ramdisk; 0 for none.
        initrd_size: its bytes.
    """
    page = bytearray(PAGE_SIZE)
    page[_E820_ENTRIES] = 1
    struct.pack_into("<QQI", page, _E820_TABLE, 0, memory, _RAM)
    struct.pack_into("<H", page, _VERSION, _PROTOCOL)
    page[_LOADER], page[_LOADFLAGS] = _UNKNOWN_LOADER, _KEEP_SEGMENTS
    struct.pack_into("<II", page, _INITRD, initrd, initrd_size)
    struct.pack_into("<I", page, _CMDLINE_PTR, CMDLINE)
    struct.pack_into("<I", page, _SUBARCH, _LGUEST)
    return bytes(page)
