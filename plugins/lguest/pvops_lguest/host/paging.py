"""The two forms of page tables: two levels of 32-bit entries, and PAE's three of 64 bits.

Guest and host were built alike, so a host has one form. Source: drivers/lguest/page_tables.c, where a kernel with
X86_PAE has another path (2.6.31 to 4.13), and asm/lguest.h for the host's own place; Intel SDM volume 3, 4.3 and 4.4.
"""

from __future__ import annotations

from typing import Final

import attrs

from pvops_core.kinds import MachineKind

PRESENT: Final = 0x001
RW: Final = 0x002
USER: Final = 0x004
PWT: Final = 0x008
ACCESSED: Final = 0x020
DIRTY: Final = 0x040
PSE: Final = 0x080
GLOBAL: Final = 0x100
# What a level's entries can forbid (SDM volume 3, 4.6).
RIGHTS: Final = RW | USER
TABLE: Final = PRESENT | RIGHTS | ACCESSED | DIRTY
"""Flags that an entry which leads to a table may have (_PAGE_TABLE)."""


@attrs.frozen
class Level:
    """One level of entries that lead to tables.

    Attributes:
        shift: the lowest bit of an address that counts there.
        count: entries of a table.
        flags: which an entry may have.
        implied: rights that an entry gives though it has no bits for them, as one of PAE's top level.
        name: of an entry, in the words of the host.
    """

    shift: int
    count: int
    flags: int
    implied: int
    name: str


@attrs.frozen
class TableForm:
    """A form of page tables.

    Attributes:
        size: bytes of an entry.
        uppers: the levels above the last, from the top.
        switcher: first virtual address of the host's own part, which one table maps.
    """

    size: int
    uppers: tuple[Level, ...]
    switcher: int

    @property
    def entries(self) -> int:
        """Entries of a table of the last level."""
        return 4096 // self.size

    @property
    def frame(self) -> int:
        """The bits of an entry that are an address; the manual reserves those above 51."""
        # Bit 63 of a wide entry is NX and stays out of the address.
        return 0xFFFFF000 if self.size == 4 else 0xFFFFFFFFFF000

    @property
    def reach(self) -> int:
        """Bytes that a table of the last level maps."""
        return 1 << self.uppers[-1].shift

    @property
    def reserved(self) -> int:
        """Bytes at the top of the guest's addresses that it is told to leave alone."""
        return (1 << 32) - self.switcher


# SWITCHER_ADDR (asm/lguest.h): what one table of the last level maps, at the top.
TWO_LEVELS: Final = TableForm(4, (Level(22, 1024, TABLE, 0, "directory"),), 0xFFC00000)
THREE_LEVELS: Final = TableForm(
    8, (Level(30, 4, PRESENT, RIGHTS, "directory"), Level(21, 512, TABLE, 0, "middle directory")), 0xFFE00000
)


def paging_of(kind: MachineKind) -> TableForm:
    """The form that a guest of a kind of machine uses."""
    return THREE_LEVELS if kind is MachineKind.PAE else TWO_LEVELS
