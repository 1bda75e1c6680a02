"""Which values of the control registers are refused (Intel SDM volume 3, 2.5 and 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine.cpu.faults import general_protection
from pvops_core.machine.cpu.memory.paging import PHYSICAL_BITS
from pvops_core.x86 import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, MSR_EFER

if TYPE_CHECKING:
    from pvops_core.machine.cpu.core import Core

_CR0_NW, _CR0_CD = 1 << 29, 1 << 30
# VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT: what cpuid offers, and no more
_CR4_KNOWN = 0x7FF
# Bits 1, 2 and 5 to 8, and what no address has (Intel SDM volume 3, table 4-8).
_PDPTE_RESERVED = 0x1E6 | ~((1 << PHYSICAL_BITS) - 1)


def check_cr0(vcpu: Core, value: int) -> None:
    """#GP(0) for bit combinations that mov to CR0 refuses."""
    # Bits 63 to 32 of CR0 are reserved and must be 0 (SDM volume 3, 2.5).
    if value >> 32:
        raise general_protection("CR0 has 32 bits")
    if value & CR0_PG and not value & CR0_PE:
        raise general_protection("CR0.PG without PE")
    if value & _CR0_NW and not value & _CR0_CD:
        raise general_protection("CR0.NW without CD")
    # What paging needs is checked where it goes on; both values may have been set in any order before.
    if value & CR0_PG and not vcpu.cr0 & CR0_PG:
        if vcpu.msr(MSR_EFER) & EFER_LME and not vcpu.cr4 & CR4_PAE:
            raise general_protection("long mode without CR4.PAE")
        if vcpu.machine.kind.bits == 32 and vcpu.cr4 & CR4_PAE:
            _check_pdptes(vcpu, vcpu.cr3)


def check_cr3(vcpu: Core, value: int) -> None:
    """#GP(0) for a table address beyond the physical width, or a reserved bit in a present PDPTE."""
    if vcpu.msr(MSR_EFER) & EFER_LMA:
        if value >> PHYSICAL_BITS:
            raise general_protection(f"CR3 {value:#x} is beyond {PHYSICAL_BITS} bits")
    elif vcpu.cr4 & CR4_PAE and vcpu.cr0 & CR0_PG:
        _check_pdptes(vcpu, value)


def check_cr4(vcpu: Core, value: int) -> None:
    """#GP(0) for unknown bits, and for clearing PAE in long mode."""
    if value & ~_CR4_KNOWN:
        raise general_protection(f"CR4 bits {value & ~_CR4_KNOWN:#x} are reserved")
    # Paging in long mode is PAE's with one level more (SDM volume 3, 4.1.1), so CR4.PAE holds till LME's paging ends.
    if vcpu.msr(MSR_EFER) & EFER_LMA and not value & CR4_PAE:
        raise general_protection("CR4.PAE cannot be cleared in long mode")
    if vcpu.machine.kind.bits == 32 and value & CR4_PAE and vcpu.cr0 & CR0_PG and not vcpu.cr4 & CR4_PAE:
        _check_pdptes(vcpu, vcpu.cr3)


def _check_pdptes(vcpu: Core, cr3: int) -> None:
    memory = vcpu.machine.memory
    # Four entries, aligned to 32 bytes, which a move to CR3 loads (SDM volume 3, 4.4.1).
    for at in range(cr3 & 0xFFFFFFE0, (cr3 & 0xFFFFFFE0) + 32, 8):
        # What lies beyond memory reads as 0, as an absent entry does.
        entry = memory.u64(at) if at + 8 <= memory.size else 0
        if entry & 1 and entry & _PDPTE_RESERVED:
            raise general_protection(f"PDPTE {entry:#x} has reserved bits set")
