"""``struct boot_params`` as the launcher fills it, in the page at guest-physical 0.

Source: main() of Documentation/lguest/lguest.c; asm/bootparam.h. The fields are the same in all generations, though
2.6.23 looks at fewer.
"""

from __future__ import annotations

from typing import Final

from pvops_core.images.bootparams import BITS, BOOT_PARAMS, RAM
from pvops_lguest.host.memory import PAGE_SIZE

CMDLINE: Final = PAGE_SIZE
"""Guest-physical address of the command line."""

CMDLINE_MOST: Final = 2047
"""COMMAND_LINE_SIZE of later kernels with the NUL; those of 2.6.23 cut at 255."""

# The first with hardware_subarch (Documentation/i386/boot.txt, protocol 2.07).
_PROTOCOL: Final = 0x0207
# type_of_loader: without one Linux ignores the ramdisk.
_UNKNOWN_LOADER: Final = 0xFF
# loadflags: the guest's segments are set already, and ring 1 may not load those of ring 0.
_KEEP_SEGMENTS: Final = 0x40
_LGUEST: Final = 1
"""X86_SUBARCH_LGUEST."""


def boot_parameters(memory: int, initrd: int, initrd_size: int) -> bytes:
    """The page.

    Args:
        memory: bytes of the guest's memory, which is in one piece.
        initrd: guest-physical address of the initial ramdisk; 0 for none.
        initrd_size: its bytes.
    """
    return BOOT_PARAMS.packed(
        BITS,
        {
            "e820_entries": 1,
            "e820_table[0].size": memory,
            "e820_table[0].type": RAM,
            "hdr.version": _PROTOCOL,
            "hdr.type_of_loader": _UNKNOWN_LOADER,
            "hdr.loadflags": _KEEP_SEGMENTS,
            "hdr.ramdisk_image": initrd,
            "hdr.ramdisk_size": initrd_size,
            "hdr.cmd_line_ptr": CMDLINE,
            "hdr.hardware_subarch": _LGUEST,
        },
    )
