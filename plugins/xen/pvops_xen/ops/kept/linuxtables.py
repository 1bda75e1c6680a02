"""What a Linux does to mappings of its own by address: tables in the making, descriptor tables, the fixed map.

Source: arch/x86/xen/mmu_pv.c and enlighten_pv.c of 6.1, 6.12 and 7.2.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import PageFault
from pvops_core.x86 import PAGE
from pvops_xen.hypervisor.abi import PAGE_SHIFT, Hypercall
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory.ptwr import emulate_store
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.ops.guest import XenGuest
    from pvops_xen.ops.kept.linux import Linux

_SAVED_DIRTY: Final = 1 << 58  # _PAGE_SAVED_DIRTY (asm/pgtable_types.h)
_START_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000
_EARLY_MAP: Final = "bm_pte"
"""The one page table of early_ioremap (arch/x86/mm/ioremap.c)."""
_START: Final = XEN["start_info"]
_BITS: Final = 64


class LinuxTables:
    """Those of one kernel.

    Args:
        xen: its Xen code.
        linux: what it keeps.
    """

    def __init__(self, xen: XenGuest, linux: Linux) -> None:
        self._xen = xen
        self._linux = linux

    # --- one page's mappings ---------------------------------------------------------------------------------------

    @staticmethod
    def entry(cpu: Vcpu, va: int) -> int:
        """``lookup_address``: the entry that maps an address, as Xen has it; PageFault without one."""
        return cpu.walk(va).entries[-1][1]

    def frame(self, cpu: Vcpu, va: int) -> int:
        """The pseudo-physical frame behind an address: ``pte_pfn(*lookup_address(va))``."""
        return self._xen.frames.pfn(pte.frame_of(self.entry(cpu, va)))

    def map(self, cpu: Vcpu, va: int, entry: int, flags: int = 0) -> None:
        """update_va_mapping, or BUG."""
        if self._xen.platform.hypercall(cpu, Hypercall.UPDATE_VA_MAPPING, va, entry, flags):
            self._xen.bug(f"{va:#x} could not be mapped by {entry:#x}")

    def remap(self, cpu: Vcpu, va: int, *, writable: bool) -> None:
        """``make_lowmem_page_readonly`` and ``make_lowmem_page_readwrite``; nothing where nothing is mapped."""
        try:
            entry = self.entry(cpu, va)
        except PageFault:
            return
        self.map(cpu, va, entry | pte.RW if writable else self._without_write(entry))

    def _without_write(self, entry: int) -> int:
        """``pte_wrprotect``: since a dirty page that is not writable is a shadow stack's (6.6), another bit says so."""
        entry &= ~pte.RW
        # A dirty page that is read-only is a shadow stack's (6.6), so another bit says that it was dirty.
        if entry & pte.D and self._linux.names.knows("user_shstk"):
            entry = entry & ~pte.D | _SAVED_DIRTY
        return entry

    def protected(self, pfn: int, *, writable: bool) -> int:
        """``pfn_pte`` with PAGE_KERNEL or PAGE_KERNEL_RO."""
        return self._xen.frames.mfn(pfn) << PAGE_SHIFT | self._linux.protection(writable=writable)

    def set_aliases(self, cpu: Vcpu, va: int, *, writable: bool) -> None:
        """``set_aliased_prot``: a page by its address, and by that in the direct map."""
        pfn = self.frame(cpu, va)
        entry = self.protected(pfn, writable=writable)
        self.map(cpu, va, entry)
        # Where the direct map is the very same address, once is enough.
        if (alias := self._linux.va(pfn)) != va:
            self.map(cpu, alias, entry)

    # --- while boot makes the tables -------------------------------------------------------------------------------

    def in_early_map(self, ptep: int) -> bool:
        """``is_early_ioremap_ptep``."""
        start = self._linux.names.address(_EARLY_MAP)
        return start <= ptep < start + PAGE

    def store(self, cpu: Vcpu, va: int, value: int) -> None:
        """``native_set_pte``: a plain store, which Xen carries out where the table is in use and thus read-only.

        Raises:
            PageFault: it does not.
        """
        try:
            # Xen emulates the store where the table is in use, and then it must.
            cpu.set_u64(va, value)
        except PageFault:
            if not emulate_store(self._xen.platform.hv, cpu, va, value):
                raise

    def early_value(self, value: int) -> int:
        """``xen_make_pte_init``: the list of frames, where it lies outside of the kernel's image, is not writable."""
        start = self._linux.variable("xen_start_info")
        # The list of frames lies in the kernel's image only in old kernels; elsewhere it must stay read-only.
        if self._of_start(start, "mfn_list") < _START_KERNEL_MAP:
            first = self._of_start(start, "first_p2m_pfn")
            if first <= (value & pte.ADDRESS) >> PAGE_SHIFT < first + self._of_start(start, "nr_p2m_frames"):
                value &= ~pte.RW
        return self._xen.frames.entry_to_machine(value)

    def _of_start(self, start: int, member: str) -> int:
        return self._linux.memory.u64(start + _START.offset(member, _BITS))

    # --- the fixed map ---------------------------------------------------------------------------------------------

    @cached_property
    def _fixed(self) -> tuple[range, range]:
        """Numbers of fixed pages of the kernel's own memory, and of interrupt controllers, which it has not."""

        def number(name: str) -> int:
            return self._linux.names.enumerator("fixed_addresses", name)

        own = range(number("FIX_BTMAP_END"), number("FIX_BTMAP_BEGIN") + 1)
        return own, range(number("FIX_APIC_BASE"), number("FIX_IO_APIC_BASE_END") + 1)

    @cached_property
    def for_vsyscalls(self) -> int:
        """Number of the fixed page that user space has as well."""
        return self._linux.names.enumerator("fixed_addresses", "VSYSCALL_PAGE")

    def fixed_entry(self, idx: int, phys: int, flags: int) -> int:
        """The entry of a fixed page; all but the kernel's own memory goes by machine frame."""
        own, controllers = self._fixed
        # The APIC is Xen's: the kernel maps a page of its own instead.
        if idx in controllers:
            return self.protected(
                self._linux.pa(self._linux.names.address("dummy_mapping")) >> PAGE_SHIFT, writable=True
            )
        if flags & pte.P:
            flags &= self._linux.variable("__supported_pte_mask")
        entry = phys & pte.ADDRESS | flags
        # All but the kernel's own memory is named by its machine frame.
        return self._xen.frames.entry_to_machine(entry) if idx in own else entry
