"""The model-specific registers that a machine has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.faults import general_protection
from pvops_core.machine.kinds import MachineKind
from pvops_core.machine.paging import CR0_PG, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE
from pvops_core.machine.registers import MSR_EFER

if TYPE_CHECKING:
    from pvops_core.machine.vcpu import Vcpu

MSR_TSC: Final = 0x10
MSR_APIC_BASE: Final = 0x1B
MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP = 0x174, 0x175, 0x176
MSR_MISC_ENABLE: Final = 0x1A0
MSR_PAT: Final = 0x277
MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_FMASK = 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084
MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_TSC_AUX = 0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103

_BOTH = frozenset(
    {
        MSR_EFER,
        MSR_APIC_BASE,
        MSR_SYSENTER_CS,
        MSR_SYSENTER_ESP,
        MSR_SYSENTER_EIP,
        MSR_MISC_ENABLE,
        MSR_PAT,
        MSR_TSC_AUX,
    }
)
_LONG = frozenset({MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_FMASK, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE})
_ADDRESSES = frozenset(
    {MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_LSTAR, MSR_CSTAR, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE}
)


@attrs.frozen
class ServedMsr:
    """A register that the processor does not have and a hypervisor offers.

    Attributes:
        read: gives its value, 64 bits, or raises #GP(0).
        write: takes one, or raises #GP(0).
    """

    read: Callable[[Vcpu], int]
    write: Callable[[Vcpu, int], None]


def _known(vcpu: Vcpu, number: int) -> bool:
    return number in _BOTH or (number in _LONG and vcpu.machine.kind is MachineKind.X86_64)


def read_msr(vcpu: Vcpu, number: int) -> int:
    """As rdmsr at level 0: the register, or #GP(0) if the machine does not have it."""
    if number in vcpu.machine.served_msrs:
        return vcpu.machine.served_msrs[number].read(vcpu) & 0xFFFFFFFFFFFFFFFF
    if number == MSR_TSC:
        return vcpu.machine.clock.ns + vcpu.tsc_offset & 0xFFFFFFFFFFFFFFFF
    if not _known(vcpu, number):
        raise general_protection(f"no MSR {number:#x}")
    return vcpu.msr(number)


def write_msr(vcpu: Vcpu, number: int, value: int) -> None:
    """As wrmsr at level 0: #GP(0) for an unknown register, reserved bits or a non-canonical address."""
    value &= 0xFFFFFFFFFFFFFFFF
    if number in vcpu.machine.served_msrs:
        vcpu.machine.served_msrs[number].write(vcpu, value)
        return
    if number == MSR_TSC:
        vcpu.tsc_offset = value - vcpu.machine.clock.ns
        return
    if not _known(vcpu, number):
        raise general_protection(f"no MSR {number:#x}")
    if number in _ADDRESSES and value >> 47 not in {0, 0x1FFFF}:
        raise general_protection(f"MSR {number:#x} takes a canonical address, not {value:#x}")
    if number == MSR_EFER:
        value = _checked_efer(vcpu, value)
    if number == MSR_PAT and any(value >> shift & 0xFF not in {0, 1, 4, 5, 6, 7} for shift in range(0, 64, 8)):
        raise general_protection(f"PAT {value:#x} has a reserved type")
    vcpu.set_msr(number, value)


def _checked_efer(vcpu: Vcpu, value: int) -> int:
    known = EFER_NXE
    if vcpu.machine.kind is MachineKind.X86_64:
        known |= EFER_SCE | EFER_LME | EFER_LMA
    if value & ~known:
        raise general_protection(f"EFER bits {value & ~known:#x} are reserved")
    old = vcpu.msr(MSR_EFER)
    if (value ^ old) & EFER_LME and vcpu.cr0 & CR0_PG:
        raise general_protection("EFER.LME cannot change while paging is on")
    return value & ~EFER_LMA | old & EFER_LMA  # LMA is the CPU's own
