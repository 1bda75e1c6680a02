"""The guest's side of its page tables (arch/x86/xen/mmu_pv.c): where they are, which are read-only, pinned, whose root.

No ops: what several groups of them do to tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import PageFault
from pvops_core.machine.run.eventkinds import event_kind
from pvops_xen.hypervisor.abi import DOMID_SELF, PAGE_SHIFT, UVMF_TLB_FLUSH, Hypercall, MmuExt
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.ops.frames import INVALID
from pvops_xen.ops.multicalls import OPERATION

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.ops.guest import XenGuest

_USER_PGD: Final = event_kind(
    "xen_get_user_pgd",
    "A page table has a second root in its struct page.",
    address="int: of the struct page",
)

_KERNEL: Final = pte.P | pte.RW | pte.A | pte.D

# Of x86_64 with four levels (Documentation/arch/x86/x86_64/mm.rst). From beyond the direct map to the kernel's image
# page tables alone translate: vmalloc space, the struct pages.
_VMALLOC: Final = 0xFFFF_C000_0000_0000
_VMALLOC_END: Final = 0xFFFF_FFFF_8000_0000
_VMEMMAP: Final = 0xFFFF_EA00_0000_0000

# struct page with 64-bit words (include/linux/mm_types.h).
_STRUCT_PAGE: Final = 64
_PAGE_PRIVATE: Final = 0x28

_USER_SLOTS64: Final = 256
"""Of a root: its lower half."""
_USER_SLOTS_PAE: Final = 3
"""Of four: 3 GiB of user space, with the usual CONFIG_PAGE_OFFSET."""


class PageTables:
    """Tables are made read-only before Xen takes them, and given back after.

    Args:
        xen: the guest's Xen code.
    """

    def __init__(self, xen: XenGuest) -> None:
        self._xen = xen

    def machine_of(self, cpu: Vcpu, va: int) -> int:
        """``arbitrary_virt_to_machine``: machine address behind a virtual one."""
        if self._xen.linux is not None and not _VMALLOC <= va < _VMALLOC_END:
            return self._xen.frames.mfn(self._xen.linux.pa(va) >> 12) << 12 | va & 0xFFF
        return cpu.walk(va).pa

    def is_pinned(self, cpu: Vcpu, va: int) -> bool:
        """``xen_page_pinned``: the page that holds an entry is a table in use."""
        if self._xen.linux is not None:
            return self._xen.linux.pa(va) >> 12 in self._xen.kept.pinned
        return self._xen.frames.pfn(self.machine_of(cpu, va) >> 12) in self._xen.kept.pinned

    def va(self, pfn: int) -> int:
        """``__va``: where the kernel maps a frame of its own."""
        if self._xen.linux is not None:
            return self._xen.linux.va(pfn)
        return self._xen.symbol("kernel_base") + (pfn << PAGE_SHIFT) & self._xen.platform.hv.abi.mask

    def pfn_of(self, va: int) -> int:
        """``PFN_DOWN(__pa(va))``."""
        if self._xen.linux is not None:
            return self._xen.linux.pa(va) >> PAGE_SHIFT
        return va - self._xen.symbol("kernel_base") >> PAGE_SHIFT

    def root_pfn(self, cpu: Vcpu, mm: int) -> int:
        """Pseudo-physical frame of a space's root: mm->pgd."""
        return self.pfn_of(cpu.word(mm + self._xen.guest.member("mm_struct", "pgd")))

    def protect(self, cpu: Vcpu, pfn: int, *, writable: bool) -> None:
        """``set_page_prot`` of the kernel's own mapping of a frame: at once, or BUG."""
        self._remember(pfn, writable=writable)
        arguments = self._xen.mc(cpu).va_arguments(self.va(pfn), self._entry(pfn, writable=writable), 0)
        if self._xen.platform.hypercall(cpu, Hypercall.UPDATE_VA_MAPPING, *arguments):
            self._xen.bug(f"pfn {pfn:#x} could not be made {'read-write' if writable else 'read-only'}")

    def protect_later(self, cpu: Vcpu, pfn: int, *, writable: bool, root: bool = False) -> None:
        """The same as part of the batch; after the entry of a root the TLB is flushed (``xen_pin_page``)."""
        self._remember(pfn, writable=writable)
        flags = UVMF_TLB_FLUSH if root else 0
        self._xen.mc(cpu).update_va_mapping(self.va(pfn), self._entry(pfn, writable=writable), flags)

    def _remember(self, pfn: int, *, writable: bool) -> None:
        if writable:
            self._xen.kept.protected.discard(pfn)
        else:
            self._xen.kept.protected.add(pfn)

    def _entry(self, pfn: int, *, writable: bool) -> int:
        if self._xen.linux is not None:
            return self._xen.frames.mfn(pfn) << PAGE_SHIFT | self._xen.linux.protection(writable=writable)
        return self._xen.frames.mfn(pfn) << PAGE_SHIFT | (_KERNEL if writable else _KERNEL & ~pte.RW)

    def pin_now(self, cpu: Vcpu, command: MmuExt, pfn: int) -> None:
        """``pin_pagetable_pfn``: at once, or BUG."""
        operation = OPERATION.at(self._xen.bits).form.pack(command, self._xen.frames.mfn(pfn), 0)
        address = self._xen.argument(cpu, operation)
        if self._xen.platform.hypercall(cpu, Hypercall.MMUEXT_OP, address, 1, 0, DOMID_SELF):
            self._xen.bug(f"{command.name} of pfn {pfn:#x} was refused")

    def pin_root_command(self) -> MmuExt:
        """Which of mmuext_op's commands pins a root of this width."""
        return MmuExt.PIN_L4_TABLE if self._xen.bits == 64 else MmuExt.PIN_L3_TABLE

    def early_buffer(self, cpu: Vcpu) -> range:
        """Frames set aside for early page tables: pgt_buf_start to pgt_buf_top."""
        start, top = (cpu.u64(self._xen.symbol(name)) for name in ("pgt_buf_start", "pgt_buf_top"))
        return range(start, top)

    def user_root(self, cpu: Vcpu, pfn: int) -> int:
        """``xen_get_user_pgd``: page->private of the root. Before there are struct pages the look-up itself faults."""
        if self._xen.bits == 32:
            return 0
        if not self._xen.kept.late:
            struct_page = _VMEMMAP + pfn * _STRUCT_PAGE
            try:
                return cpu.word(struct_page + _PAGE_PRIVATE)
            except PageFault as fault:
                self._xen.env.machine.log.record(_USER_PGD, cpu.index, address=struct_page)
                raise fault from None
        return self._xen.kept.user_roots.get(pfn) or 0

    def user_root_pfn(self, root: int) -> int | None:
        """Pseudo-physical frame of the user root of a kernel root; None without."""
        va = self._xen.kept.user_roots.get(root) if self._xen.bits == 64 else 0
        return self.pfn_of(va) if va else None

    def user_entry(self, cpu: Vcpu, p4dp: int) -> int:
        """``xen_get_user_pgd``: the same slot of the user root; 0 if there is none yet, or the slot is the kernel's."""
        xen = self._xen
        if not xen.kept.late or p4dp % 4096 // 8 >= _USER_SLOTS64:
            return 0
        known = xen.linux is not None
        frame = self.pfn_of(p4dp) if known else xen.frames.pfn(self.machine_of(cpu, p4dp) >> PAGE_SHIFT)
        user = self.user_root(cpu, frame)
        return user + p4dp % 4096 if user else 0

    def of_space(self, root_mfn: int) -> Iterator[tuple[int, int]]:
        """(pfn, level) of the tables below a root that belong to user space, as ``xen_pgd_walk`` goes."""
        top = 4 if self._xen.bits == 64 else 3
        slots = _USER_SLOTS64 if self._xen.bits == 64 else _USER_SLOTS_PAE
        yield from self.below(root_mfn, top, slots)
        if top == 3:  # the kernel's directory is not shared among PAE guests
            entry = self._xen.platform.hv.validator.table(root_mfn)[3]
            pfn = self._xen.frames.pfn(pte.frame_of(entry)) if entry & pte.P else INVALID
            if pfn != INVALID:
                yield pfn, 2

    def below(self, mfn: int, level: int, slots: int) -> Iterator[tuple[int, int]]:
        """(pfn, level) of the tables below one, as far as they are the guest's own memory."""
        for entry in self._xen.platform.hv.validator.table(mfn)[:slots]:
            if not entry & pte.P:
                continue
            child = pte.frame_of(entry)
            pfn = self._xen.frames.pfn(child)
            if pfn == INVALID:
                continue
            yield pfn, level - 1
            if level > 2:
                yield from self.below(child, level - 1, 512)
