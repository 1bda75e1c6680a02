"""Executable pages of a kernel beside its image: modules, trampolines, compiled filters.

They are found by the kernel's own page tables, whatever has put them there. 64-bit kernels keep them in the last 2 GiB
of the address space (Documentation/arch/x86/x86_64/mm.rst of Linux), 32-bit ones anywhere above ``PAGE_OFFSET``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import numpy as np

from pvops_core.machine import MachineKind
from pvops_core.machine.memory import PAGE, same_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pvops_core.machine import PhysicalMemory

_PRESENT, _LARGE, _NX = np.uint64(1), np.uint64(1 << 7), np.uint64(1 << 63)
_ADDRESS: Final = 0x000F_FFFF_FFFF_F000
_PAGE_SHIFT: Final = PAGE.bit_length() - 1
_SHIFT: Final = np.uint64(_PAGE_SHIFT)
_KERNEL32: Final = 0xC000_0000
_TOP: Final = 0xFFFF_FF80_0000_0000
"""Where the last entry of a 64-bit root begins; the last two of its table are the last 2 GiB."""
_Pages: TypeAlias = "tuple[NDArray[np.uint64], NDArray[np.uint64]]"
"""Virtual addresses of some pages, and where they are."""


@attrs.frozen
class _Tables:
    """A kernel's page tables below the root, as far as they map what is to be looked at.

    Attributes:
        memory: where they are.
        size: of an entry, in bytes.
        image: first address, and the first after it, of what is not.
        read: what has been read of tables since this was last cleared, by their physical address.
    """

    memory: PhysicalMemory
    size: int
    image: tuple[int, int]
    read: dict[int, bytes] = attrs.field(factory=dict)

    @property
    def unchanged(self) -> bool:
        """Whether all tables that have been read hold the same still; then they lead to the same pages."""
        return bool(self.read) and all(self.memory.read(table, PAGE) == held for table, held in self.read.items())

    def _entries(self, table: int) -> NDArray[np.uint64]:
        """The entries of a table, none where it is none."""
        # A kernel may have freed the page and put anything there: an address behind memory is no table.
        if table + PAGE > self.memory.size:
            return np.empty(0, np.uint64)
        held = self.read[table] = self.memory.read(table, PAGE)
        return np.frombuffer(held, "<u8" if self.size == 8 else "<u4").astype(np.uint64)

    def under(self, table: int, va: int, shift: int) -> Iterator[_Pages]:
        """The executable pages below a table whose entries map 1 << shift bytes each."""
        entries = self._entries(table)
        # Entries that map part of the image only stay wanted: first is rounded up, end down.
        wanted = (entries & _PRESENT != 0) & (entries & _NX == 0)
        first, end = (max(0, address - va) for address in self.image)
        wanted[-(-first >> shift) : end >> shift] = False
        found = np.flatnonzero(wanted)
        if shift == _PAGE_SHIFT:
            yield np.uint64(va) + (found.astype(np.uint64) << _SHIFT), entries[found] & np.uint64(_ADDRESS)
            return
        for index in found.tolist():
            entry, address = int(entries[index]), va + (index << shift)
            if not entry & int(_LARGE):
                yield from self.under(entry & _ADDRESS, address, shift - (9 if self.size == 8 else 10))
            elif va >= _TOP:  # 32-bit kernels map all of memory so, executable or not
                pages = np.arange(1 << shift - _PAGE_SHIFT, dtype=np.uint64) << _SHIFT
                yield np.uint64(address) + pages, np.uint64(entry & _ADDRESS & -1 << shift) + pages

    def executable(self, kind: MachineKind, root: int) -> Iterator[_Pages]:
        """The same of all tables of the kernel's half."""
        # The last entry of the root maps the top 512 GiB, its last two entries the last 2 GiB.
        if kind is MachineKind.X86_64:
            top = int(self._entries(root)[511])
            third = self._entries(top & _ADDRESS).tolist() if top & 1 else []
            for index, entry in enumerate(third[510:], 510):
                if entry & 1 and not entry & int(_LARGE | _NX):
                    yield from self.under(entry & _ADDRESS, _TOP + (index << 30), 21)
        elif kind is MachineKind.PAE:
            # The fourth entry of PAE's root is all of the kernel's.
            last = int(self._entries(root & -PAGE)[root % PAGE // 8 + 3])
            if last & 1:
                yield from self.under(last & _ADDRESS, _KERNEL32, 21)
        else:
            for index, entry in enumerate(self._entries(root).tolist()):
                if entry & 1 and not entry & int(_LARGE) and index << 22 >= _KERNEL32:
                    yield from self.under(entry & _ADDRESS, index << 22, _PAGE_SHIFT)


class ModuleText:
    """What such pages held when last looked at.

    Args:
        memory: where they are.
        kind: the machine's.
        image: first address of the kernel's image, and the first after it: what lies there is not looked at.
    """

    def __init__(self, memory: PhysicalMemory, kind: MachineKind, image: tuple[int, int]) -> None:
        self._memory = memory
        self._kind = kind
        self._image = image
        self._tables = _Tables(memory, 4 if kind is MachineKind.I386 else 8, image)
        self.forget()

    def forget(self) -> None:
        """Nothing is translated: what is found next may be dropped, and is little."""
        self._root = -1
        self._pages = np.empty((2, 0), np.uint64)
        self._held = np.empty((0, PAGE), np.uint8)

    def changes(self, root: int) -> list[tuple[int, int]]:
        """Virtual ranges that hold something else than the last time, or were not there.

        Args:
            root: physical address of tables that map the kernel's half.
        """
        pages = self._find(root)
        held = self._memory.array.reshape(-1, PAGE)[pages[1] >> _SHIFT]
        # The common case: nothing was mapped or unmapped, and one comparison of all bytes will do.
        if np.array_equal(pages, self._pages):
            same = same_bytes(held, self._held)
            changed = pages[0, :0] if same else pages[0, (held != self._held).any(axis=1)]
        else:
            # A page that moved in memory with the same address is another page.
            before = {(int(at), int(place)): row for at, place, row in zip(*self._pages, self._held, strict=True)}
            rows = zip(pages.T.tolist(), held, strict=True)
            new = [not np.array_equal(before.get((at, place), row[:0]), row) for (at, place), row in rows]
            changed = pages[0, np.array(new, dtype=np.bool_)]
        self._pages, self._held = pages, held
        return [(address, address + PAGE) for address in changed.tolist()]

    def _find(self, root: int) -> NDArray[np.uint64]:
        """Addresses and places of the pages as they are mapped now."""
        if root == self._root and self._tables.unchanged:
            return self._pages
        self._root = root
        self._tables.read.clear()
        found = [np.stack(pages) for pages in self._tables.executable(self._kind, root)]
        pages = np.concatenate([np.empty((2, 0), np.uint64), *found], axis=1)
        first, end = self._image
        inside = (pages[0] >= np.uint64(first)) & (pages[0] < np.uint64(end))
        # Pages behind memory are devices'.
        kept: NDArray[np.uint64] = pages[:, ~inside & (pages[1] < np.uint64(self._memory.size))]
        return kept
