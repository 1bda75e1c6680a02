"""``struct boot_params`` and what is in it: how a boot loader tells a Linux what it needs to know."""

from pathlib import Path
from typing import Final

from pvops_core.headers import Header

BOOTPARAM: Final = Header(Path(__file__).with_name("bootparam.h"), packed=True)
BOOT_PARAMS: Final = BOOTPARAM["boot_params"]
E820_ENTRY: Final = BOOTPARAM["boot_e820_entry"].whole("addr", "size", "type")
BITS: Final = 64
"""Of the structures, which are the same in both widths."""

RAM, RESERVED = 1, 2
"""``E820_TYPE_RAM``, ``E820_TYPE_RESERVED``."""


def one_region(size: int) -> bytes:
    """The head of a ``struct e820map`` of one entry: memory from 0 on."""
    fields = BOOTPARAM["e820map"].part("nr_map", "map[0].addr", "map[0].size", "map[0].type")
    return fields.at(BITS).form.pack(1, 0, size, RAM)
