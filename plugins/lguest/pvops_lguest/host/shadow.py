"""Shadow page tables: what the CPU walks instead of the guest's own tables.

The guest keeps ordinary tables of guest-physical frames and says when it changed them. The host
keeps up to four page directories of its own, fills them on demand from page faults and drops entries when it
is told to. A shadow is a cache, so it may lack what the guest maps, and is stale only where the guest kept
quiet. Source: drivers/lguest/page_tables.c (2.6.23 to 2.6.35).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import PAGE_MASK, PAGE_SIZE
from pvops_lguest.host.paging import ACCESSED, DIRTY, GLOBAL, PRESENT, PSE, PWT, RIGHTS, RW, USER
from pvops_lguest.host.shadowpages import ShadowPages

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory
    from pvops_lguest.host.frames import FramePool
    from pvops_lguest.host.memory import GuestMemory
    from pvops_lguest.host.paging import Level, TableForm

# ARRAY_SIZE(pgdirs) of struct lguest: kernel entries are in each, so more would cost more for every SET_PTE.
DIRECTORIES = 4

# Bits of a page fault's error code (SDM volume 3, 4.7).
FAULT_WRITE = 2
FAULT_USER = 4

_ADDRESS = 0xFFFFFFFF


class Mmu(Protocol):
    """The CPU side of a shadow: told of every change that a TLB may not outlive."""

    def load(self, cr3: int) -> None:
        """Walk the directory at physical address ``cr3`` from now on."""

    def flush(self, va: int | None) -> None:
        """Forget the translation of the page of ``va``; of every page if None."""


@attrs.define
class Directory:
    """One shadow page directory (``struct pgdir``).

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
        paging: TableForm,
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
            paging: the form of the tables, the guest's and the host's.
            kernel_address: until the guest says another one.
            choose: draws a number below its argument, for the random replacement.
            refuses_pwt: an entry with PWT kills the guest.
        """
        self._guest = guest
        self._frames = frames
        self._pages = ShadowPages(memory, frames, paging)
        self._mmu = mmu
        self.paging = paging
        self._memory = memory
        wide = paging.size == 8
        self._guest_entry = guest.u64 if wide else guest.u32
        self._set_guest_entry = guest.set_u64 if wide else guest.set_u32
        self._choose = choose
        # check_gpte() refused PWT too until 2.6.25.
        self._bad_pte = PSE | (PWT if refuses_pwt else 0)
        self._directories = [Directory() for _ in range(DIRECTORIES)]
        self._current = 0
        self._switcher = 0
        self._evicted = False
        self.kernel_address = kernel_address
        self.pinned: tuple[int, ...] = ()

    # The guest's tables

    def guest_pa(self, va: int) -> int:
        """Guest-physical address of guest-virtual ``va``.

        Raises:
            GuestKilledError: the guest maps nothing there.
        """
        table, frame = self.gpgdir, self.paging.frame
        for depth in range(len(self.paging.uppers)):
            # Guest tables lie below 4 GiB with PAE too: the rest of a wide entry is flags.
            entry = self._guest_entry(self._pages.slot(table, va, depth) & _ADDRESS)
            if not entry & PRESENT:
                # guest_pa(): what the host is to read for the guest must be mapped, or the guest is broken.
                raise GuestKilledError(f"Bad address {va:#x}")
            table = entry & frame
        gpte = self._guest_entry(self._pages.last(table, va))
        if not gpte & PRESENT:
            raise GuestKilledError(f"Bad address {va:#x}")
        return (gpte & frame) | (va & PAGE_MASK)

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
        """Shadow the guest's first directory; ``switcher_entry`` leads to the table of the host's own part."""
        self._switcher = switcher_entry
        # The first of the four, for a guest always begins with one directory.
        self._directories[0] = Directory(gpgdir, self._blank_directory())
        self._current = 0
        self._mmu.load(self.cr3)

    def preload(self) -> None:
        """Shadow at once what the guest's present directory maps and marks as used, as SET_PTE would.

        For the launcher's own tables, which are good; stops when frames run short.

        Raises:
            GuestKilledError: they are not good.
        """
        paging, size = self.paging, self.paging.size
        # Not the switcher's part: its table is the host's own.
        for va in range(0, paging.switcher, paging.reach):
            # Rather stop than evict: what is left out comes by faults.
            if self._frames.available < len(paging.uppers):
                return
            found = self._tables_for(va)
            if found is None:
                continue
            table, guest_table, _rights = found
            entries = memoryview(self._guest.read(guest_table, PAGE_SIZE)).cast("Q" if size > 4 else "I")
            self._memory.write(table, b"".join(self._eager_entry(gpte).to_bytes(size, "little") for gpte in entries))

    def _blank_directory(self) -> int:
        return self._pages.blank(self._take_frame, self._switcher)

    def _take_frame(self) -> int:
        """A frame; when none is left every shadow is dropped first, for a shadow is only a cache."""
        # Not "no memory" at once, as in the kernel, whose pool is all of the machine's: ours is small.
        pa = self._frames.take()
        if pa is None:
            self._evict()
            pa = self._frames.take()
        if pa is None:
            raise GuestKilledError("out of memory allocating pte page")
        return pa

    def _evict(self) -> None:
        self._release_all()
        # demand() looks at this when the tables are whole again: pinning in the middle would walk half of them.
        self._evicted = True

    # Faults

    def demand(self, va: int, error_code: int) -> bool:
        """demand_page(): map the page of ``va`` if the guest's tables allow the access that faulted.

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
        found = self._tables_for(va)
        if found is None:
            return False
        table, guest_table, rights = found
        where = self._pages.last(guest_table, va)
        gpte = self._guest_entry(where)
        # The upper entries' rights bound the last one's, as in hardware; their shadows have them too, so an access
        # that they forbid would fault for ever.
        rights &= gpte
        if not gpte & PRESENT:
            return False
        # A refusal is the guest's own fault to handle, so it comes before any check that kills.
        if error_code & FAULT_WRITE and not rights & RW:
            return False
        if error_code & FAULT_USER and not rights & USER:
            return False
        self._check_gpte(gpte)
        # In the guest's table too: its kernel reads both to choose pages to reclaim.
        gpte |= ACCESSED | (DIRTY if error_code & FAULT_WRITE else 0)
        self._pages.set_entry(self._pages.last(table, va), self._shadow_entry(gpte))
        self._set_guest_entry(where, gpte)
        return True

    def _tables_for(self, va: int) -> tuple[int, int, int] | None:
        """The last shadow table for ``va``, made if there is none, the guest's, and the rights that lead there.

        None where the guest has none.
        """
        uppers = self.paging.uppers
        if 1 < len(uppers) > self._frames.available:
            # Making room later would take away what this walk has just made.
            self._evict()
        table, guest_table, rights = self.cr3, self.gpgdir, RIGHTS
        for depth, level in enumerate(uppers):
            gentry = self._guest_entry(self._pages.slot(guest_table, va, depth) & _ADDRESS)
            if not gentry & PRESENT:
                return None
            # Only at the last level, for with PAE one upper entry maps the switcher and the guest's pages beside it.
            if depth + 1 == len(uppers):
                self._refuse_switcher(va)
            table = self._table_for(self._pages.slot(table, va, depth), gentry, level)
            guest_table = gentry & self.paging.frame
            rights &= gentry | level.implied
        return table, guest_table, rights

    def _table_for(self, slot: int, gentry: int, level: Level) -> int:
        """The shadow table that an entry leads to, made if there is none."""
        frame = self.paging.frame
        entry, flags = self._pages.entry(slot), gentry & ~frame
        if not entry & PRESENT:
            self._check_upper(gentry, level)
            entry = self._take_frame() | flags
            self._pages.set_entry(slot, entry)
        elif (entry ^ flags) & RIGHTS:
            # Rights that the guest changed without a word: the fault is our chance to notice.
            self._check_upper(gentry, level)
            entry = (entry & frame) | flags
            self._pages.set_entry(slot, entry)
            # The CPU may have cached the entry with its old rights (SDM volume 3, 4.10.2).
            self._mmu.flush(None)
        return entry & frame

    def _refuse_switcher(self, va: int) -> None:
        if va >= self.paging.switcher:
            raise GuestKilledError("attempt to access switcher pages")

    def _check_upper(self, gentry: int, level: Level) -> None:
        frame = self.paging.frame
        # check_gpgd(): flags outside of _PAGE_TABLE would be large pages, or bits that the shadow gives no meaning.
        if gentry & ~frame & ~level.flags or (gentry & frame) >= self._guest.limit:
            raise GuestKilledError(f"bad page {level.name} entry")

    def _check_gpte(self, gpte: int) -> None:
        # The limit keeps the guest from mapping the host's own memory.
        if gpte & self._bad_pte or (gpte & self.paging.frame) >= self._guest.limit:
            raise GuestKilledError("bad page table entry")

    @staticmethod
    def _shadow_entry(gpte: int) -> int:
        """The entry for the CPU: never global, and writable only when DIRTY is already set."""
        # GLOBAL out: the guest sets it for its kernel's pages, which a switch of shadows must flush nevertheless.
        entry = gpte & ~GLOBAL
        # Without RW the first write faults, which is how DIRTY gets into the guest's table (demand_page()).
        return entry if gpte & DIRTY else entry & ~RW

    # The kernel stack

    def pin_all(self) -> None:
        """pin_stack_pages(): map every pinned page writable.

        Raises:
            GuestKilledError: the guest's tables do not map one so.
        """
        # Before the walk: what is evicted while pinning must be seen again.
        self._evicted = False
        for va in self.pinned:
            # page_writable() first: a demand for a page that is mapped would count as a fault.
            if not self._writable(va) and not self.demand(va, FAULT_WRITE):
                raise GuestKilledError(f"bad stack page {va:#x}")

    def _writable(self, va: int) -> bool:
        entry = self.lookup(va)
        return entry is not None and entry & RW != 0

    def lookup(self, va: int) -> int | None:
        """The present shadow's table entry for ``va``; None where it has none that is present."""
        self._refuse_switcher(va)
        slot = self._pages.find(self.cr3, va)
        entry = 0 if slot is None else self._pages.entry(slot)
        return entry if entry & PRESENT else None

    # What the guest asks for

    def set_pte(self, gpgdir: int, va: int, gpte: int) -> None:
        """guest_set_pte(): the entry of ``va`` in the table under ``gpgdir`` is now ``gpte``.

        A kernel address changes in every shadow. Kernels mark entries ACCESSED or DIRTY beforehand, and
        those that are go in at once; any other is dropped and comes back on demand.

        Raises:
            GuestKilledError: a bad entry, or an address of the host's.
        """
        # Kernel mappings are the same in all address spaces, so all shadows have the entry (guest_set_pte()).
        if va >= self.kernel_address:
            indexes = [i for i, directory in enumerate(self._directories) if directory.pa is not None]
        else:
            indexes = list(self._shadows_of(gpgdir))
        for index in indexes:
            self._set_pte_in(index, va, gpte)
        if indexes:
            # Nothing walks a directory that is not shadowed, so nothing can have cached the entry.
            self._mmu.flush(va)

    def _set_pte_in(self, index: int, va: int, gpte: int) -> None:
        self._refuse_switcher(va)
        root = self._directories[index].pa
        slot = None if root is None else self._pages.find(root, va)
        if slot is not None:
            self._pages.set_entry(slot, self._eager_entry(gpte))

    def _eager_entry(self, gpte: int) -> int:
        """What goes in for an entry before anyone faulted on it: nothing, unless the guest marked it as used."""
        # Unused entries come by a fault: most that a fork copies are never touched (__guest_set_pte()).
        if not gpte & PRESENT or not gpte & (ACCESSED | DIRTY):
            return 0
        self._check_gpte(gpte)
        return self._shadow_entry(gpte)

    def _shadows_of(self, gpgdir: int) -> Iterator[int]:
        return (i for i, directory in enumerate(self._directories) if directory.gpgdir == gpgdir)

    def set_pgd(self, gpgdir: int, index: int) -> None:
        """guest_set_pgd(): entry ``index`` of the directory ``gpgdir`` changed; what its shadow leads to is dropped.

        That with the host's own part is ignored: kernels fill the whole directory at boot.
        """
        # The last entry is the switcher's: the guest may write it in its own table without effect.
        if index >= self.paging.uppers[0].count - 1:
            return
        for shadow in self._shadows_of(gpgdir):
            root = self._directories[shadow].pa
            if root is not None:
                # Dropped, not copied: the guest's table behind the new entry is only known when a fault walks it.
                self._pages.release(root + index * self.paging.size)
        self._mmu.flush(None)

    def new_pgtable(self, gpgdir: int) -> None:
        """guest_new_pagetable(): use the guest directory at ``gpgdir``, shadowed already or from now on.

        Raises:
            GuestKilledError: the kernel stack is not mapped there.
        """
        known = next(self._shadows_of(gpgdir), None)
        if known is None:
            # At random, as prandom_u32() in new_pgdir(), but from the machine's seed so that runs repeat.
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
        """guest_pagetable_flush_user(): drop what the present shadow has below the kernel."""
        self._release_user(self._current)
        self._mmu.flush(None)

    def clear_all(self) -> None:
        """guest_pagetable_clear_all(): drop everything in every shadow, and map the kernel stack again."""
        self._release_all()
        self.pin_all()

    def _release_all(self) -> None:
        for directory in self._directories:
            if directory.pa is not None:
                self._pages.clear(directory.pa)
        self._mmu.flush(None)

    def _release_user(self, index: int) -> None:
        root = self._directories[index].pa
        if root is not None:
            self._pages.release_below(root, self.kernel_address)

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
