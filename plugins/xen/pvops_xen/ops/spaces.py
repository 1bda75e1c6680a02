"""pv_mmu_ops: the life of page tables and address spaces (arch/x86/xen/mmu_pv.c): read-only, pinned, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_core.machine.cpu.faults import PageFault
from pvops_core.machine.run.eventkinds import event_kind
from pvops_xen.hypervisor.abi import DOMID_SELF, PAGE_SHIFT, UVMF_TLB_FLUSH, Hypercall, MmuExt
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.ops.frames import INVALID
from pvops_xen.ops.mmu import XenEntryOps
from pvops_xen.ops.multicalls import OPERATION, Lazy

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

_USER_PGD: Final = event_kind(
    "xen_get_user_pgd",
    "A page table has a second root in its struct page.",
    address="int: of the struct page",
)

_KERNEL: Final = pte.P | pte.RW | pte.A | pte.D
_USER_SLOTS64: Final = 256
_USER_SLOTS_PAE: Final = 3
_VMEMMAP: Final = 0xFFFF_EA00_0000_0000
_STRUCT_PAGE: Final = 64
_PAGE_PRIVATE: Final = 0x28


class SpaceOps(XenEntryOps):
    """Tables are made read-only before Xen takes them, and given back after."""

    def va(self, pfn: int) -> int:
        """``__va``: where the kernel maps a frame of its own."""
        if self.linux is not None:
            return self.linux.va(pfn)
        return self.symbol("kernel_base") + (pfn << PAGE_SHIFT) & self.platform.hv.abi.mask

    def protect(self, cpu: Vcpu, pfn: int, *, writable: bool) -> None:
        """``set_page_prot`` of the kernel's own mapping of a frame: at once, or BUG."""
        self._remember(pfn, writable=writable)
        arguments = self.mc(cpu).va_arguments(self.va(pfn), self._entry(pfn, writable=writable), 0)
        if self.platform.hypercall(cpu, Hypercall.UPDATE_VA_MAPPING, *arguments):
            self.bug(f"pfn {pfn:#x} could not be made {'read-write' if writable else 'read-only'}")

    def _protect_later(self, cpu: Vcpu, pfn: int, *, writable: bool, root: bool = False) -> None:
        """The same as part of the batch; after the entry of a root the TLB is flushed (``xen_pin_page``)."""
        self._remember(pfn, writable=writable)
        flags = UVMF_TLB_FLUSH if root else 0
        self.mc(cpu).update_va_mapping(self.va(pfn), self._entry(pfn, writable=writable), flags)

    def _remember(self, pfn: int, *, writable: bool) -> None:
        if writable:
            self.kept.protected.discard(pfn)
        else:
            self.kept.protected.add(pfn)

    def _entry(self, pfn: int, *, writable: bool) -> int:
        if self.linux is not None:
            return self.frames.mfn(pfn) << PAGE_SHIFT | self.linux.protection(writable=writable)
        return self.frames.mfn(pfn) << PAGE_SHIFT | (_KERNEL if writable else _KERNEL & ~pte.RW)

    def pin_now(self, cpu: Vcpu, command: MmuExt, pfn: int) -> None:
        """``pin_pagetable_pfn``: at once, or BUG."""
        operation = OPERATION.at(self.bits).form.pack(command, self.frames.mfn(pfn), 0)
        address = self.argument(cpu, operation)
        if self.platform.hypercall(cpu, Hypercall.MMUEXT_OP, address, 1, 0, DOMID_SELF):
            self.bug(f"{command.name} of pfn {pfn:#x} was refused")

    def _pin_root_command(self) -> MmuExt:
        return MmuExt.PIN_L4_TABLE if self.bits == 64 else MmuExt.PIN_L3_TABLE

    # --- tables ----------------------------------------------------------------------------------------------------

    def _root_pfn(self, cpu: Vcpu, mm: int) -> int:
        return self._pfn_of(cpu.word(mm + self.guest.member("mm_struct", "pgd")))

    def _pfn_of(self, va: int) -> int:
        """``PFN_DOWN(__pa(va))``."""
        if self.linux is not None:
            return self.linux.pa(va) >> PAGE_SHIFT
        return va - self.symbol("kernel_base") >> PAGE_SHIFT

    def _alloc(self, cpu: Vcpu, mm: int, pfn: int, *, leaf: bool) -> None:
        """A page becomes a table: early at once, later only if its space is in use already."""
        if not self.kept.late:
            self.protect(cpu, pfn, writable=False)
            if leaf:
                self.pin_now(cpu, MmuExt.PIN_L1_TABLE, pfn)
        elif self._root_pfn(cpu, mm) in self.kept.pinned:
            before = self.linux is not None and self.linux.has_pages() and pfn in self.kept.pinned
            self.kept.pinned.add(pfn)
            self._protect_later(cpu, pfn, writable=False)
            if leaf and not before:
                self.mc(cpu).extended(MmuExt.PIN_L1_TABLE, self.frames.mfn(pfn))
            self.mc(cpu).issue(Lazy.MMU)

    def _release(self, cpu: Vcpu, pfn: int, *, leaf: bool) -> None:
        """A page is a table no more."""
        if self.kept.late and pfn in self.kept.pinned:
            self.kept.pinned.discard(pfn)
            if leaf:
                self.mc(cpu).extended(MmuExt.UNPIN_TABLE, self.frames.mfn(pfn))
            self._protect_later(cpu, pfn, writable=True)
            self.mc(cpu).issue(Lazy.MMU)
        elif not self.kept.late and pfn in self.kept.protected:
            if leaf:
                self.pin_now(cpu, MmuExt.UNPIN_TABLE, pfn)
            self.protect(cpu, pfn, writable=True)

    @hookimpl
    def alloc_pte(self, cpu: Vcpu, mm: int, pfn: int) -> None:
        """A page becomes a level-1 table."""
        self.in_early_boot("alloc_pte")
        self._alloc(cpu, mm, pfn, leaf=True)

    @hookimpl
    def alloc_pmd(self, cpu: Vcpu, mm: int, pfn: int) -> None:
        """A page becomes a level-2 table."""
        self.in_early_boot("alloc_pmd")
        self._alloc(cpu, mm, pfn, leaf=False)

    @hookimpl
    def alloc_pud(self, cpu: Vcpu, mm: int, pfn: int) -> None:
        """A page becomes a level-3 table."""
        self.in_early_boot("alloc_pud")
        self._alloc(cpu, mm, pfn, leaf=False)

    @hookimpl
    def release_pte(self, cpu: Vcpu, pfn: int) -> None:
        """A level-1 table is given up."""
        self.in_early_boot("release_pte")
        self._release(cpu, pfn, leaf=True)

    @hookimpl
    def release_pmd(self, cpu: Vcpu, pfn: int) -> None:
        """A level-2 table is given up."""
        self.in_early_boot("release_pmd")
        self._release(cpu, pfn, leaf=False)

    @hookimpl
    def release_pud(self, cpu: Vcpu, pfn: int) -> None:
        """A level-3 table is given up."""
        self.in_early_boot("release_pud")
        self._release(cpu, pfn, leaf=False)

    @hookimpl
    def alloc_pt(self, cpu: Vcpu, mm: int, pfn: int) -> None:
        """A page becomes a level-1 table (2.6)."""
        self._alloc(cpu, mm, pfn, leaf=True)

    @hookimpl
    def alloc_pd(self, cpu: Vcpu, pfn: int) -> None:
        """A page becomes a page directory (2.6). The op does not say whose: only early ones become read-only here."""
        if not self.kept.late:
            self.protect(cpu, pfn, writable=False)

    @hookimpl
    def alloc_pd_clone(self, cpu: Vcpu) -> None:
        """A directory copied from another (2.6): Xen needs nothing until its space is pinned."""
        del cpu

    @hookimpl
    def release_pt(self, cpu: Vcpu, pfn: int) -> None:
        """A level-1 table is given up (2.6)."""
        self._release(cpu, pfn, leaf=True)

    @hookimpl
    def release_pd(self, cpu: Vcpu, pfn: int) -> None:
        """A page directory is given up (2.6)."""
        self._release(cpu, pfn, leaf=False)

    # --- spaces ----------------------------------------------------------------------------------------------------

    @hookimpl
    def pgd_alloc(self, cpu: Vcpu, mm: int) -> int:
        """Remember which user root belongs to this space's kernel root (the kernel keeps it in page->private)."""
        self.leave("the allocator of pages")
        root = self._root_pfn(cpu, mm)
        if root in self.kept.pinned:
            self.bug("pgd_alloc of a pinned root")
        self.kept.user_roots[root] = cpu.word(mm + self.symbol("mm_user_pgd_offset"))
        return 0

    @hookimpl
    def pgd_free(self, cpu: Vcpu, mm: int) -> None:
        """Forget it."""
        self.leave("the allocator of pages")
        self.kept.user_roots[self._root_pfn(cpu, mm)] = 0

    def user_root(self, cpu: Vcpu, pfn: int) -> int:
        """``xen_get_user_pgd``: page->private of the root. Before there are struct pages the look-up itself faults."""
        if self.bits == 32:
            return 0
        if not self.kept.late:
            struct_page = _VMEMMAP + pfn * _STRUCT_PAGE
            try:
                return cpu.word(struct_page + _PAGE_PRIVATE)
            except PageFault as fault:
                self.env.machine.log.record(_USER_PGD, cpu.index, address=struct_page)
                raise fault from None
        return self.kept.user_roots.get(pfn) or 0

    def _user_entry(self, cpu: Vcpu, p4dp: int) -> int:
        return super()._user_entry(cpu, p4dp) if self.kept.late else 0

    def _tables(self, root_mfn: int) -> Iterator[tuple[int, int]]:
        """(pfn, level) of the tables below a root that belong to user space, as ``xen_pgd_walk`` goes."""
        top = 4 if self.bits == 64 else 3
        slots = _USER_SLOTS64 if self.bits == 64 else _USER_SLOTS_PAE
        yield from self._below(root_mfn, top, slots)
        if top == 3:  # the kernel's directory is not shared among PAE guests
            entry = self.platform.hv.validator.table(root_mfn)[3]
            pfn = self.frames.pfn(pte.frame_of(entry)) if entry & pte.P else INVALID
            if pfn != INVALID:
                yield pfn, 2

    def _below(self, mfn: int, level: int, slots: int) -> Iterator[tuple[int, int]]:
        for entry in self.platform.hv.validator.table(mfn)[:slots]:
            if not entry & pte.P:
                continue
            child = pte.frame_of(entry)
            pfn = self.frames.pfn(child)
            if pfn == INVALID:
                continue
            yield pfn, level - 1
            if level > 2:
                yield from self._below(child, level - 1, 512)

    def _pin_space(self, cpu: Vcpu, mm: int) -> None:
        """``xen_pgd_pin``: every table of the space read-only, leaves and roots pinned, in as few calls as possible."""
        root = self._root_pfn(cpu, mm)
        if root in self.kept.pinned:
            return
        batch = self.mc(cpu)
        for pfn, level in [*self._tables(self.frames.mfn(root)), (root, 0)]:
            if pfn in self.kept.pinned:
                continue
            self.kept.pinned.add(pfn)
            self._protect_later(cpu, pfn, writable=False, root=not level)
            if level == 1:
                batch.extended(MmuExt.PIN_L1_TABLE, self.frames.mfn(pfn), joins=True)
        batch.extended(self._pin_root_command(), self.frames.mfn(root), joins=True)
        user = self._user_root_pfn(root)
        if user is not None:
            self.kept.pinned.add(user)
            self._protect_later(cpu, user, writable=False, root=True)
            batch.extended(MmuExt.PIN_L4_TABLE, self.frames.mfn(user), joins=True)
        batch.flush()

    def _user_root_pfn(self, root: int) -> int | None:
        va = self.kept.user_roots.get(root) if self.bits == 64 else 0
        return self._pfn_of(va) if va else None

    def _unpin_space(self, cpu: Vcpu, mm: int) -> None:
        """``xen_pgd_unpin``."""
        root = self._root_pfn(cpu, mm)
        batch = self.mc(cpu)
        batch.extended(MmuExt.UNPIN_TABLE, self.frames.mfn(root), joins=True)
        user = self._user_root_pfn(root)
        if user is not None:
            batch.extended(MmuExt.UNPIN_TABLE, self.frames.mfn(user), joins=True)
        tables = [*([(user, 0)] if user is not None else []), *self._tables(self.frames.mfn(root)), (root, 0)]
        for pfn, level in tables:
            if pfn not in self.kept.pinned:
                continue
            self.kept.pinned.discard(pfn)
            if level == 1:
                batch.extended(MmuExt.UNPIN_TABLE, self.frames.mfn(pfn))
            self._protect_later(cpu, pfn, writable=True, root=not level)
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
        root = self._root_pfn(cpu, mm)
        if self.linux is not None and self.linux.is_used(mm, root):
            self.leave("processors that are lazy")
        if root not in self.kept.pinned:
            return
        if self.linux is None:
            self._drop_references(cpu, self.frames.mfn(root))
        self._unpin_space(cpu, mm)

    def _drop_references(self, cpu: Vcpu, root_mfn: int) -> None:
        """``xen_drop_mm_ref``: a vCPU that lazily still runs on the root goes to the kernel's own."""
        home = self._root_pfn(cpu, self.symbol("init_mm"))
        for other in self.env.machine.vcpus:
            if self.platform.hv.domain.vcpus[other.index].guest_table == root_mfn:
                self.xen_write_cr3(other, home << PAGE_SHIFT)

    # --- the base pointer ------------------------------------------------------------------------------------------

    @hookimpl
    def read_cr3(self, cpu: Vcpu) -> int:
        """What write_cr3 was last given; at first the root that the builder made."""
        known = self.kept.cr3.get(cpu.index)
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
        if self.linux is not None:
            self.in_early_boot("write_cr3")
            self.xen_write_cr3(cpu, cr3)
            return
        pfn = cr3 >> PAGE_SHIFT
        old = self.platform.hv.domain.vcpus[cpu.index].guest_table
        if self.frames.mfn(pfn) != old:
            self.protect(cpu, pfn, writable=False)
            self.mc(cpu).extended(MmuExt.NEW_BASEPTR, self.frames.mfn(pfn))
            if self.mc(cpu).flush():
                self.bug(f"the root at {cr3:#x} was refused")
            self.pin_now(cpu, self._pin_root_command(), pfn)
            self._give_back_builder_tables(cpu, old)
        self.kept.cr3[cpu.index] = cr3
        self.env.switch("write_cr3", self.xen_write_cr3, "xen_write_cr3_init")

    def _give_back_builder_tables(self, cpu: Vcpu, old_root: int) -> None:
        """The first root is unpinned, and its tables are ordinary memory again."""
        tables = self.platform.initial_tables
        if tables is None or old_root != tables.root:
            return
        self.pin_now(cpu, MmuExt.UNPIN_TABLE, tables.first_pfn)
        for pfn in range(tables.first_pfn, tables.first_pfn + tables.count):
            self.protect(cpu, pfn, writable=True)

    def xen_write_cr3(self, cpu: Vcpu, cr3: int) -> None:
        """The late version: also loads the root that user mode runs on, or none."""
        pfn = cr3 >> PAGE_SHIFT
        batch = self.mc(cpu)
        user = self.user_root(cpu, pfn)
        self.kept.cr3[cpu.index] = cr3
        batch.extended(MmuExt.NEW_BASEPTR, self.frames.mfn(pfn), joins=True)
        batch.after("set_current_cr3", cr3)
        if self.bits == 64:
            batch.extended(MmuExt.NEW_USER_BASEPTR, self.frames.mfn(self._pfn_of(user)) if user else 0, joins=True)
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
