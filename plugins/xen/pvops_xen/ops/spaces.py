"""pv_mmu_ops: the life of page tables and address spaces (arch/x86/xen/mmu_pv.c): read-only, pinned, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_xen.hypervisor.abi import PAGE_SHIFT, MmuExt
from pvops_xen.ops.base import XenGroup
from pvops_xen.ops.multicalls import Lazy

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


class SpaceOps(XenGroup):
    """Tables are made read-only before Xen takes them, and given back after."""

    # --- tables ----------------------------------------------------------------------------------------------------

    def _alloc(self, op: str, cpu: Vcpu, mm: int, pfn: int, *, leaf: bool) -> None:
        """A page becomes a table: early at once, later only if its space is in use already."""
        # In the making, a table is written plainly and remapped read-only when it is pinned.
        if (early := self.early(op)) is not None:
            early.remap(cpu, self.tables.va(pfn), writable=False)
            if leaf:
                self.tables.pin_now(cpu, MmuExt.PIN_L1_TABLE, pfn)
        elif not self.kept.late:
            self.tables.protect(cpu, pfn, writable=False)
            if leaf:
                self.tables.pin_now(cpu, MmuExt.PIN_L1_TABLE, pfn)
        elif self.tables.root_pfn(cpu, mm) in self.kept.pinned:
            # A kernel's struct page already says so where it has pinned this one before.
            before = self.linux is not None and self.linux.has_pages() and pfn in self.kept.pinned
            self.kept.pinned.add(pfn)
            self.tables.protect_later(cpu, pfn, writable=False)
            if leaf and not before:
                self.mc(cpu).extended(MmuExt.PIN_L1_TABLE, self.frames.mfn(pfn))
            self.mc(cpu).issue(Lazy.MMU)

    def _release(self, op: str, cpu: Vcpu, pfn: int, *, leaf: bool) -> None:
        """A page is a table no more."""
        if (early := self.early(op)) is not None:
            if leaf:
                self.tables.pin_now(cpu, MmuExt.UNPIN_TABLE, pfn)
            early.remap(cpu, self.tables.va(pfn), writable=True)
        elif self.kept.late and pfn in self.kept.pinned:
            self.kept.pinned.discard(pfn)
            if leaf:
                self.mc(cpu).extended(MmuExt.UNPIN_TABLE, self.frames.mfn(pfn))
            self.tables.protect_later(cpu, pfn, writable=True)
            self.mc(cpu).issue(Lazy.MMU)
        elif not self.kept.late and pfn in self.kept.protected:
            if leaf:
                self.tables.pin_now(cpu, MmuExt.UNPIN_TABLE, pfn)
            self.tables.protect(cpu, pfn, writable=True)

    @hookimpl
    def alloc_pte(self, cpu: Vcpu, mm: int, pfn: int) -> None:
        """A page becomes a level-1 table."""
        self._alloc("alloc_pte", cpu, mm, pfn, leaf=True)

    @hookimpl
    def alloc_pmd(self, cpu: Vcpu, mm: int, pfn: int) -> None:
        """A page becomes a level-2 table."""
        self._alloc("alloc_pmd", cpu, mm, pfn, leaf=False)

    @hookimpl
    def alloc_pud(self, cpu: Vcpu, mm: int, pfn: int) -> None:
        """A page becomes a level-3 table."""
        self._alloc("alloc_pud", cpu, mm, pfn, leaf=False)

    @hookimpl
    def release_pte(self, cpu: Vcpu, pfn: int) -> None:
        """A level-1 table is given up."""
        self._release("release_pte", cpu, pfn, leaf=True)

    @hookimpl
    def release_pmd(self, cpu: Vcpu, pfn: int) -> None:
        """A level-2 table is given up."""
        self._release("release_pmd", cpu, pfn, leaf=False)

    @hookimpl
    def release_pud(self, cpu: Vcpu, pfn: int) -> None:
        """A level-3 table is given up."""
        self._release("release_pud", cpu, pfn, leaf=False)

    @hookimpl
    def alloc_pt(self, cpu: Vcpu, mm: int, pfn: int) -> None:
        """A page becomes a level-1 table (2.6)."""
        self._alloc("alloc_pt", cpu, mm, pfn, leaf=True)

    @hookimpl
    def alloc_pd(self, cpu: Vcpu, pfn: int) -> None:
        """A page becomes a page directory (2.6). The op does not say whose: only early ones become read-only here."""
        if not self.kept.late:
            self.tables.protect(cpu, pfn, writable=False)

    @hookimpl
    def alloc_pd_clone(self, cpu: Vcpu) -> None:
        """A directory copied from another (2.6): Xen needs nothing until its space is pinned."""
        del cpu

    @hookimpl
    def release_pt(self, cpu: Vcpu, pfn: int) -> None:
        """A level-1 table is given up (2.6)."""
        self._release("release_pt", cpu, pfn, leaf=True)

    @hookimpl
    def release_pd(self, cpu: Vcpu, pfn: int) -> None:
        """A page directory is given up (2.6)."""
        self._release("release_pd", cpu, pfn, leaf=False)

    # --- spaces ----------------------------------------------------------------------------------------------------

    @hookimpl
    def pgd_alloc(self, cpu: Vcpu, mm: int) -> int:
        """Remember which user root belongs to this space's kernel root (the kernel keeps it in page->private)."""
        self.leave("the allocator of pages")
        root = self.tables.root_pfn(cpu, mm)
        # A root that is pinned would be of a space that is in use.
        if root in self.kept.pinned:
            self.bug("pgd_alloc of a pinned root")
        # The user root of a space is found by its kernel root (``xen_get_user_pgd``).
        self.kept.user_roots[root] = cpu.word(mm + self.symbol("mm_user_pgd_offset"))
        return 0

    @hookimpl
    def pgd_free(self, cpu: Vcpu, mm: int) -> None:
        """Forget it."""
        self.leave("the allocator of pages")
        self.kept.user_roots[self.tables.root_pfn(cpu, mm)] = 0

    def _pin_space(self, cpu: Vcpu, mm: int) -> None:
        """``xen_pgd_pin``: every table of the space read-only, leaves and roots pinned, in as few calls as possible."""
        root = self.tables.root_pfn(cpu, mm)
        if root in self.kept.pinned:
            return
        batch = self.mc(cpu)
        # Leaves first, so that the roots find them pinned; the kernel's own calls come out the same.
        for pfn, level in [*self.tables.of_space(self.frames.mfn(root)), (root, 0)]:
            if pfn in self.kept.pinned:
                continue
            self.kept.pinned.add(pfn)
            self.tables.protect_later(cpu, pfn, writable=False, root=not level)
            if level == 1:
                batch.extended(MmuExt.PIN_L1_TABLE, self.frames.mfn(pfn), joins=True)
        # The root last: pinning it validates the whole tree.
        batch.extended(self.tables.pin_root_command(), self.frames.mfn(root), joins=True)
        user = self.tables.user_root_pfn(root)
        if user is not None:
            self.kept.pinned.add(user)
            self.tables.protect_later(cpu, user, writable=False, root=True)
            batch.extended(MmuExt.PIN_L4_TABLE, self.frames.mfn(user), joins=True)
        batch.flush()

    def _unpin_space(self, cpu: Vcpu, mm: int) -> None:
        """``xen_pgd_unpin``."""
        root = self.tables.root_pfn(cpu, mm)
        batch = self.mc(cpu)
        batch.extended(MmuExt.UNPIN_TABLE, self.frames.mfn(root), joins=True)
        # The user root is pinned as a root, and so unpinned as one.
        user = self.tables.user_root_pfn(root)
        if user is not None:
            batch.extended(MmuExt.UNPIN_TABLE, self.frames.mfn(user), joins=True)
        tables = [*([(user, 0)] if user is not None else []), *self.tables.of_space(self.frames.mfn(root)), (root, 0)]
        for pfn, level in tables:
            if pfn not in self.kept.pinned:
                continue
            self.kept.pinned.discard(pfn)
            if level == 1:
                batch.extended(MmuExt.UNPIN_TABLE, self.frames.mfn(pfn))
            self.tables.protect_later(cpu, pfn, writable=True, root=not level)
        batch.flush()

    @hookimpl
    def activate_mm(self, cpu: Vcpu, next: int) -> None:
        """Pin the space that is about to be used for the first time."""
        self._pin_space(cpu, next)

    @hookimpl
    def enter_mmap(self, cpu: Vcpu, mm: int) -> None:
        """Pin the space that is about to be used for the first time, or that fork has made (6.12)."""
        self._pin_space(cpu, mm)

    @hookimpl
    def dup_mmap(self, cpu: Vcpu, mm: int) -> None:
        """Pin the copy that fork has made."""
        self._pin_space(cpu, mm)

    @hookimpl
    def exit_mmap(self, cpu: Vcpu, mm: int) -> None:
        """Get every vCPU off the space, then unpin it."""
        root = self.tables.root_pfn(cpu, mm)
        if self.linux is not None and self.linux.is_used(mm, root):
            self.leave("processors that are lazy")
        if root not in self.kept.pinned:
            return
        # No processor may still run on it when it is unpinned.
        if self.linux is None:
            self._drop_references(cpu, self.frames.mfn(root))
        self._unpin_space(cpu, mm)

    def _drop_references(self, cpu: Vcpu, root_mfn: int) -> None:
        """``xen_drop_mm_ref``: a vCPU that lazily still runs on the root goes to the kernel's own."""
        home = self.tables.root_pfn(cpu, self.symbol("init_mm"))
        for other in self.env.machine.vcpus:
            # Lazily: the processor had no reason to change roots yet.
            if self.platform.hv.domain.vcpus[other.index].guest_table == root_mfn:
                self.xen_write_cr3(other, home << PAGE_SHIFT)

    # --- the base pointer ------------------------------------------------------------------------------------------

    @hookimpl
    def read_cr3(self, cpu: Vcpu) -> int:
        """What write_cr3 was last given; at first the root that the builder made."""
        known = self.kept.cr3.get(cpu.index)
        # The root that the builder made, until the kernel says otherwise.
        if known is not None:
            return known
        root = self.platform.hv.domain.vcpus[cpu.index].guest_table
        return self.frames.pfn(root) << PAGE_SHIFT

    @hookimpl
    def write_cr3(self, cpu: Vcpu, cr3: int) -> None:
        """``xen_write_cr3_init``: load the kernel's root and nothing else, once, then make way for the late version.

        The new root becomes read-only and pinned, the builder's is given up. User roots do not exist yet, and
        neither does what they would be found by.
        """
        # A kernel's own variables say what its roots are; nothing is given back here.
        if self.linux is not None:
            self._load_roots(cpu, cr3, user=self.early("write_cr3") is None)
            return
        pfn = cr3 >> PAGE_SHIFT
        old = self.platform.hv.domain.vcpus[cpu.index].guest_table
        if self.frames.mfn(pfn) != old:
            # Xen refuses a root that may be written.
            self.tables.protect(cpu, pfn, writable=False)
            self.mc(cpu).extended(MmuExt.NEW_BASEPTR, self.frames.mfn(pfn))
            if self.mc(cpu).flush():
                self.bug(f"the root at {cr3:#x} was refused")
            self.tables.pin_now(cpu, self.tables.pin_root_command(), pfn)
            self._give_back_builder_tables(cpu, old)
        self.kept.cr3[cpu.index] = cr3
        self.env.switch("write_cr3", self.xen_write_cr3, "xen_write_cr3_init")

    def _give_back_builder_tables(self, cpu: Vcpu, old_root: int) -> None:
        """The first root is unpinned, and its tables are ordinary memory again."""
        tables = self.platform.initial_tables
        if tables is None or old_root != tables.root:
            return
        self.tables.pin_now(cpu, MmuExt.UNPIN_TABLE, tables.first_pfn)
        for pfn in range(tables.first_pfn, tables.first_pfn + tables.count):
            self.tables.protect(cpu, pfn, writable=True)

    def xen_write_cr3(self, cpu: Vcpu, cr3: int) -> None:
        """The late version: also loads the root that user mode runs on, or none."""
        self._load_roots(cpu, cr3, user=True)

    def _load_roots(self, cpu: Vcpu, cr3: int, *, user: bool) -> None:
        pfn = cr3 >> PAGE_SHIFT
        batch = self.mc(cpu)
        root = self.tables.user_root(cpu, pfn) if user else 0
        self.kept.cr3[cpu.index] = cr3
        batch.extended(MmuExt.NEW_BASEPTR, self.frames.mfn(pfn), joins=True)
        batch.after("set_current_cr3", cr3)
        if user and self.bits == 64:
            mfn = self.frames.mfn(self.tables.pfn_of(root)) if root else 0
            batch.extended(MmuExt.NEW_USER_BASEPTR, mfn, joins=True)
        batch.issue(Lazy.CPU)

    @hookimpl
    def read_cr2(self, cpu: Vcpu) -> int:
        """vcpu_info.arch.cr2."""
        abi = self.platform.hv.abi
        return int.from_bytes(self.env.machine.memory.read(self.info(cpu) + abi.cr2, abi.word), "little")

    @hookimpl
    def write_cr2(self, cpu: Vcpu, cr2: int) -> None:
        """vcpu_info.arch.cr2."""
        abi = self.platform.hv.abi
        self.env.machine.memory.write(self.info(cpu) + abi.cr2, (cr2 & abi.mask).to_bytes(abi.word, "little"))
