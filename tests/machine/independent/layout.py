"""Where things lie in the memory of a processor that runs programs by itself, and its page tables.

Below 1 MiB is the harness, which programs have mapped for the supervisor alone; each program's pages come to the frames
that ``memory_programs`` numbers. All of it begins in a ROM that ends at 4 GiB: the harness, the programs as they were
made, and the code at the reset address in its last 64 KiB.
"""

from __future__ import annotations

import struct
from typing import Final

from pvops_core.machine import MachineKind
from tests.machine.memory_model import PAGE, Page
from tests.machine.memory_programs import DATA, FRAMES, PAGES, STACK, TEXT

GDT, IDT, TASKS, BOOT, CODE, STATE = 0x1000, 0x2000, 0x3000, 0x8000, 0x10000, 0x18000
STACK_TOP, FAULT_STACK_TOP = 0x1E000, 0x20000
PROGRAM_TABLES, OWN_TABLES = 0x20000, 0x28000
BEGIN: Final = 0x1000
END: Final = 0x30000
ROM_SIZE: Final = 2 << 20
ROM: Final = (1 << 32) - ROM_SIZE
PROGRAMS: Final = ROM + END - BEGIN
RESET_CODE: Final = (1 << 32) - 0x2000
PROGRAM_SIZE: Final = PAGE * (1 + 3 * PAGES)
"""A page of what the program begins with, then the contents of its frames."""
FRAMES_AT: Final = FRAMES * PAGE
MOST: Final = (RESET_CODE - PROGRAMS) // PROGRAM_SIZE
"""Programs in one ROM."""
WORDS: Final = 3 * PAGES * PAGE // 4

KERNEL_CODE, KERNEL_DATA, USER_DATA, USER_CODE = 0x08, 0x10, 0x1B, 0x23
OWN_TASK, PROGRAM_TASK, FAULT_TASKS = 0x28, 0x30, 0x40
LONG_TASK, BOOT_CODE = 0x28, 0x38
P, W, U, LARGE, NX = 1, 2, 4, 0x80, 1 << 63


class Tables:
    """Page tables of one address space, in a piece of memory."""

    def __init__(self, memory: bytearray, kind: MachineKind, at: int) -> None:
        self._memory, self._kind = memory, kind
        self.root = self._next = at
        self._table()
        self._format, size, bits = ("<I", 4, 10) if kind is MachineKind.I386 else ("<Q", 8, 9)
        self.entry_size, self._bits = size, bits
        self._shifts = {MachineKind.I386: (22, 12), MachineKind.PAE: (30, 21, 12)}.get(kind, (39, 30, 21, 12))

    def _table(self) -> int:
        self._next += PAGE
        return self._next - PAGE

    def entry(self, va: int, levels: int | None = None) -> int:
        """Physical address of an entry for an address; tables on the way there are made."""
        shifts, table = self._shifts[:levels], self.root
        for shift in shifts[:-1]:
            at = self._slot(table, va, shift)
            (value,) = struct.unpack_from(self._format, self._memory, at)
            if not value & P:
                topmost_of_pae = self._kind is MachineKind.PAE and shift == shifts[0]
                value = self._table() | (P if topmost_of_pae else P | W | U)
                struct.pack_into(self._format, self._memory, at, value)
            table = value & ~0xFFF
        return self._slot(table, va, shifts[-1])

    def _slot(self, table: int, va: int, shift: int) -> int:
        return table + (va >> shift & (1 << self._bits) - 1) * self.entry_size

    def map(self, va: int, value: int, levels: int | None = None) -> None:
        """Write the last entry of an address, or that of a large page where there are fewer levels."""
        struct.pack_into(self._format, self._memory, self.entry(va, levels), value)


def entry_of(page: Page | None) -> int:
    """The last-level entry of a program's page."""
    if page is None:
        return 0
    rights = (W if page.writable else 0) | (U if page.user else 0) | (NX if page.no_execute else 0)
    return page.frame * PAGE | P | rights


def program_space(memory: bytearray, kind: MachineKind) -> tuple[Tables, tuple[int, ...]]:
    """An address space with the harness in it; and where the entries of a program's pages are."""
    tables = Tables(memory, kind, PROGRAM_TABLES)
    for va in range(0, END, PAGE):
        tables.map(va, va | P | W)
    return tables, tuple(tables.entry(base + PAGE * index) for base in (TEXT, DATA, STACK) for index in range(PAGES))


def own_space(memory: bytearray, kind: MachineKind) -> Tables:
    """The first 4 MiB and the ROM one to one, by large pages, for the harness itself."""
    tables = Tables(memory, kind, OWN_TABLES)
    size, levels = (4 << 20, 1) if kind is MachineKind.I386 else (2 << 20, 2 if kind is MachineKind.PAE else 3)
    for va in (*range(0, 4 << 20, size), *range(ROM & -size, 1 << 32, size)):
        tables.map(va, va | P | W | LARGE, levels)
    return tables
