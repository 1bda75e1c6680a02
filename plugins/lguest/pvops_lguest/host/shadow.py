"""Shadow page tables: what the CPU walks instead of the guest's own tables.

The guest keeps ordinary two-level tables of guest-physical frames and says when it changed them. The host
keeps up to four page directories of its own, fills them on demand from page faults and drops entries when it
is told to. A shadow is a cache, so it may lack what the guest maps, and is stale only where the guest kept
quiet. Source: drivers/lguest/page_tables.c (2.6.23 to 2.6.35).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import PAGE_MASK, PAGE_SHIFT

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory
    from pvops_lguest.host.frames import FramePool
    from pvops_lguest.host.memory import GuestMemory

PRESENT = 0x001
RW = 0x002
USER = 0x004
PWT = 0x008
ACCESSED = 0x020
DIRTY = 0x040
PSE = 0x080
GLOBAL = 0x100
TABLE = PRESENT | RW | USER | ACCESSED | DIRTY
"""Flags that a page-directory entry may have (_PAGE_TABLE)."""

PGDIR_SHIFT = 22
DIRECTORIES = 4
SWITCHER_INDEX = 1023
"""Directory entry of the host's own 4 MiB at the top."""

FAULT_WRITE = 2
FAULT_USER = 4

_FRAME = ~PAGE_MASK & 0xFFFFFFFF


class Mmu(Protocol):
    """The CPU side of a shadow: told of every change that a TLB may not outlive."""

    def load(self, cr3: int) -> None:
        """Walk the directory at physical address ``cr3`` from now on."""

    def flush(self, va: int | None) -> None:
        """Forget the translation of the page of ``va``; of every page if None."""


@attrs.define
class Directory:
    """One shadow page directory.

    Attributes:
        gpgdir: guest-physical address of the guest directory it shadows; None before the first.
        pa: physical address of the shadow directory; None until first used.
    """

    gpgdir: int | None = None
    pa: int | None = None


class ShadowState(NamedTuple):
    """The part that is not in memory: guest and host address of each directory, which is in use, and the attributes."""

    directories: tuple[tuple[int | None, int | None], ...]
    current: int
    switcher: int
    kernel_address: int
    pinned: tuple[int, ...]
    evicted: bool


class ShadowTables:
    """The shadows of one guest, and the operations that its faults and hypercalls ask for.

    Attributes:
        kernel_address: first virtual address of the part that all of the guest's page tables share.
        pinned: virtual addresses that must stay mapped writable (the kernel stack).
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        guest: GuestMemory,
        frames: FramePool,
        mmu: Mmu,
        *,
        kernel_address: int,
        choose: Callable[[int], int],
        refuses_pwt: bool,
    ) -> None:
        """Start with no directory.

        Args:
            memory: all of machine memory.
            guest: the guest's share.
            frames: where directories and tables come from.
            mmu: the CPU.
            kernel_address: until the guest says another one.
            choose: draws a number below its argument, for the random replacement.
            refuses_pwt: an entry with PWT kills the guest.
        """
        self._memory = memory
        self._guest = guest
        self._frames = frames
        self._mmu = mmu
        self._choose = choose
        self._bad_pte = PSE | (PWT if refuses_pwt else 0)
        self._directories = [Directory() for _ in range(DIRECTORIES)]
        self._current = 0
        self._switcher = 0
        self._evicted = False
        self.kernel_address = kernel_address
        self.pinned: tuple[int, ...] = ()

    # The guest's tables

    def guest_entry(self, va: int) -> tuple[int, int, int]:
        """The guest's present directory entry and table entry for ``va``, and where the latter is.

        Returns:
            (directory entry, table entry, its guest-physical address); the last two are 0 where the
            directory entry is not present.
        """
        gpgd = self._guest.u32((self.gpgdir + (va >> PGDIR_SHIFT) * 4) & 0xFFFFFFFF)
        if not gpgd & PRESENT:
            return gpgd, 0, 0
        where = (gpgd & _FRAME) + (va >> PAGE_SHIFT) % 1024 * 4
        return gpgd, self._guest.u32(where), where

    def guest_pa(self, va: int) -> int:
        """Guest-physical address of guest-virtual ``va``.

        Raises:
            GuestKilledError: the guest maps nothing there.
        """
        gpgd, gpte, _ = self.guest_entry(va)
        if not (gpgd & PRESENT and gpte & PRESENT):
            raise GuestKilledError(f"Bad address {va:#x}")
        return (gpte & _FRAME) | (va & PAGE_MASK)

    @property
    def gpgdir(self) -> int:
        """Guest-physical address of the guest's present page directory."""
        gpgdir = self._directories[self._current].gpgdir
        if gpgdir is None:
            raise GuestKilledError("no page table yet")
        return gpgdir

    @property
    def cr3(self) -> int:
        """Physical address of the present shadow directory."""
        pa = self._directories[self._current].pa
        if pa is None:
            raise GuestKilledError("no page table yet")
        return pa

    # Start

    def start(self, gpgdir: int, switcher_entry: int) -> None:
        """Shadow the guest's first directory; ``switcher_entry`` maps the host's own 4 MiB."""
        self._switcher = switcher_entry
        self._directories[0] = Directory(gpgdir, self._blank_directory())
        self._current = 0
        self._mmu.load(self.cr3)

    def preload(self) -> None:
        """Shadow at once what the guest's present directory maps and marks as used, as SET_PTE would.

        For the launcher's own tables, which are good; stops when frames run short.

        Raises:
            GuestKilledError: they are not good.
        """
        for index in range(SWITCHER_INDEX):
            gpgd = self._guest.u32(self.gpgdir + index * 4)
            if not gpgd & PRESENT:
                continue
            if not self._frames.available:
                return
            table = self._table_for(index << PGDIR_SHIFT, gpgd)
            entries = memoryview(self._guest.read(gpgd & _FRAME, PAGE_MASK + 1)).cast("I")
            self._memory.write(table, b"".join(self._eager_entry(gpte).to_bytes(4, "little") for gpte in entries))

    def _blank_directory(self) -> int:
        pa = self._take_frame()
        self._memory.set_u32(pa + SWITCHER_INDEX * 4, self._switcher)
        return pa

    def _take_frame(self) -> int:
        """A frame; when none is left every shadow is dropped first, for a shadow is only a cache."""
        pa = self._frames.take()
        if pa is None:
            self._release_all()
            self._evicted = True
            pa = self._frames.take()
        if pa is None:
            raise GuestKilledError("out of memory allocating pte page")
        return pa

    # Faults

    def demand(self, va: int, error_code: int) -> bool:
        """Map the page of ``va`` if the guest's tables allow the access that faulted.

        Sets ACCESSED, and DIRTY for a write, in the guest's own entry.

        Args:
            va: the address that faulted.
            error_code: as the CPU gives it; bits 1 (write) and 2 (user) count.

        Returns:
            False for a real fault, which the guest must see.

        Raises:
            GuestKilledError: an entry is bad, or the address is the host's.
        """
        filled = self._fill(va, error_code)
        if self._evicted:
            # To make room the stack was dropped too, even if the access was then refused.
            self.pin_all()
        return filled

    def _fill(self, va: int, error_code: int) -> bool:
        gpgd, gpte, where = self.guest_entry(va)
        if not gpgd & PRESENT:
            return False
        table = self._table_for(va, gpgd)
        # The directory's rights bound the entry's, as in hardware; the shadow directory entry has them too,
        # so an access that they forbid would fault for ever.
        rights = gpgd & gpte
        if not rights & PRESENT:
            return False
        if error_code & FAULT_WRITE and not rights & RW:
            return False
        if error_code & FAULT_USER and not rights & USER:
            return False
        self._check_gpte(gpte)
        gpte |= ACCESSED | (DIRTY if error_code & FAULT_WRITE else 0)
        self._memory.set_u32(table + (va >> PAGE_SHIFT) % 1024 * 4, self._shadow_entry(gpte))
        self._guest.set_u32(where, gpte)
        return True

    def _table_for(self, va: int, gpgd: int) -> int:
        """Physical address of the shadow table for ``va``, made if there is none."""
        slot = self._slot(self._current, va)
        spgd = self._memory.u32(slot)
        flags = gpgd & PAGE_MASK
        if not spgd & PRESENT:
            self._check_gpgd(gpgd)
            spgd = self._take_frame() | flags
            self._memory.set_u32(slot, spgd)
        elif (spgd ^ flags) & (RW | USER):
            # Rights that the guest changed without a word: the fault is our chance to notice.
            self._check_gpgd(gpgd)
            spgd = (spgd & _FRAME) | flags
            self._memory.set_u32(slot, spgd)
            self._mmu.flush(None)
        return spgd & _FRAME

    def _slot(self, index: int, va: int) -> int:
        """Physical address of directory ``index``'s entry for ``va``."""
        entry = va >> PGDIR_SHIFT
        if entry >= SWITCHER_INDEX:
            raise GuestKilledError("attempt to access switcher pages")
        pa = self._directories[index].pa
        if pa is None:
            raise GuestKilledError("no page table yet")
        return pa + entry * 4

    def _check_gpgd(self, gpgd: int) -> None:
        if gpgd & PAGE_MASK & ~TABLE or (gpgd & _FRAME) >= self._guest.limit:
            raise GuestKilledError("bad page directory entry")

    def _check_gpte(self, gpte: int) -> None:
        if gpte & self._bad_pte or (gpte & _FRAME) >= self._guest.limit:
            raise GuestKilledError("bad page table entry")

    @staticmethod
    def _shadow_entry(gpte: int) -> int:
        """The entry for the CPU: never global, and writable only when DIRTY is already set."""
        entry = gpte & ~GLOBAL
        return entry if gpte & DIRTY else entry & ~RW

    # The kernel stack

    def pin_all(self) -> None:
        """Map every pinned page writable.

        Raises:
            GuestKilledError: the guest's tables do not map one so.
        """
        self._evicted = False
        for va in self.pinned:
            if not self._writable(va) and not self.demand(va, FAULT_WRITE):
                raise GuestKilledError(f"bad stack page {va:#x}")

    def _writable(self, va: int) -> bool:
        entry = self.lookup(va)
        return entry is not None and entry & RW != 0

    def lookup(self, va: int) -> int | None:
        """The present shadow's table entry for ``va``; None where it has none that is present."""
        spgd = self._memory.u32(self._slot(self._current, va))
        if not spgd & PRESENT:
            return None
        entry = self._memory.u32((spgd & _FRAME) + (va >> PAGE_SHIFT) % 1024 * 4)
        return entry if entry & PRESENT else None

    # What the guest asks for

    def set_pte(self, gpgdir: int, va: int, gpte: int) -> None:
        """SET_PTE: the entry of ``va`` in the table under ``gpgdir`` is now ``gpte``.

        A kernel address changes in every shadow. Kernels mark entries ACCESSED or DIRTY beforehand, and
        those that are go in at once; any other is dropped and comes back on demand.

        Raises:
            GuestKilledError: a bad entry, or an address of the host's.
        """
        if va >= self.kernel_address:
            indexes = [i for i, directory in enumerate(self._directories) if directory.pa is not None]
        else:
            indexes = list(self._shadows_of(gpgdir))
        for index in indexes:
            self._set_pte_in(index, va, gpte)
        if indexes:
            self._mmu.flush(va)

    def _set_pte_in(self, index: int, va: int, gpte: int) -> None:
        spgd = self._memory.u32(self._slot(index, va))
        if not spgd & PRESENT:
            return
        self._memory.set_u32((spgd & _FRAME) + (va >> PAGE_SHIFT) % 1024 * 4, self._eager_entry(gpte))

    def _eager_entry(self, gpte: int) -> int:
        """What goes in for an entry before anyone faulted on it: nothing, unless the guest marked it as used."""
        if not gpte & PRESENT or not gpte & (ACCESSED | DIRTY):
            return 0
        self._check_gpte(gpte)
        return self._shadow_entry(gpte)

    def _shadows_of(self, gpgdir: int) -> Iterator[int]:
        return (i for i, directory in enumerate(self._directories) if directory.gpgdir == gpgdir)

    def set_pmd(self, gpgdir: int, index: int) -> None:
        """SET_PMD: directory entry ``index`` of ``gpgdir`` changed; its shadow table is dropped.

        The host's own entry is ignored: kernels fill the whole directory at boot.
        """
        if index >= SWITCHER_INDEX:
            return
        for shadow in self._shadows_of(gpgdir):
            self._release_table(shadow, index)
        self._mmu.flush(None)

    def new_pgtable(self, gpgdir: int) -> None:
        """NEW_PGTABLE: use the guest directory at ``gpgdir``, shadowed already or from now on.

        Raises:
            GuestKilledError: the kernel stack is not mapped there.
        """
        known = next(self._shadows_of(gpgdir), None)
        if known is None:
            known = self._choose(DIRECTORIES)
            if self._directories[known].pa is None:
                self._directories[known].pa = self._blank_directory()
            self._directories[known].gpgdir = gpgdir
            # Kernel entries are the same in every directory of the guest, so those may stay.
            self._release_user(known)
        self._current = known
        self._mmu.load(self.cr3)
        # Not for a blank shadow only: one that FLUSH_TLB(1) emptied while it was not in use lacks the stack too.
        self.pin_all()

    def flush_user(self) -> None:
        """FLUSH_TLB(0): drop what the present shadow has below the kernel."""
        self._release_user(self._current)
        self._mmu.flush(None)

    def clear_all(self) -> None:
        """FLUSH_TLB(1): drop everything in every shadow, and map the kernel stack again."""
        self._release_all()
        self.pin_all()

    def _release_all(self) -> None:
        for index in range(DIRECTORIES):
            self._release_range(index, SWITCHER_INDEX)
        self._mmu.flush(None)

    def _release_user(self, index: int) -> None:
        self._release_range(index, self.kernel_address >> PGDIR_SHIFT)

    def _release_range(self, index: int, end: int) -> None:
        pa = self._directories[index].pa
        if pa is None:
            return
        # One read of the whole directory: most of its entries are empty.
        for entry, spgd in enumerate(memoryview(self._memory.read(pa, end * 4)).cast("I")):
            if spgd & PRESENT:
                self._release_table(index, entry)

    def _release_table(self, index: int, entry: int) -> None:
        pa = self._directories[index].pa
        if pa is None:
            return
        spgd = self._memory.u32(pa + entry * 4)
        if spgd & PRESENT:
            self._frames.give(spgd & _FRAME)
            self._memory.set_u32(pa + entry * 4, 0)

    # Snapshots

    def save(self) -> ShadowState:
        """Python's part of the state; the tables themselves are in machine memory."""
        directories = tuple((directory.gpgdir, directory.pa) for directory in self._directories)
        numbers = self._current, self._switcher, self.kernel_address
        return ShadowState(directories, *numbers, self.pinned, self._evicted)

    def load(self, state: ShadowState) -> None:
        """Go back to what :meth:`save` gave."""
        directories, self._current, self._switcher, self.kernel_address, self.pinned, self._evicted = state
        self._directories = [Directory(gpgdir, pa) for gpgdir, pa in directories]
