"""The model-specific registers of a machine: one table of what rdmsr and wrmsr do at level 0.

It is for guests and for Python that acts for them.

Whatever is not in the table, and no platform serves (``Machine.served_msrs``), is #GP(0), as on a processor that does
not have it. Source: Intel SDM volume 4, table 2-2; for 0xC0000080 and on AMD APM volume 2, 3.1.7 and 6.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.kinds import MachineKind
from pvops_core.machine.cpu.faults import general_protection
from pvops_core.machine.cpu.memory.paging import PHYSICAL_BITS
from pvops_core.x86 import (
    CANONICAL_TOPS,
    CR0_PG,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    MSR_EFER,
    MSR_FS_BASE,
    MSR_GS_BASE,
    MSR_KERNEL_GS_BASE,
    MSR_TSC_AUX,
)

if TYPE_CHECKING:
    from pvops_core.machine.cpu.core import Core

# Numbers: SDM volume 4, table 2-2.
MSR_TSC: Final = 0x10
MSR_PLATFORM_ID: Final = 0x17
MSR_APIC_BASE: Final = 0x1B
MSR_BIOS_SIGN_ID: Final = 0x8B
MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP = 0x174, 0x175, 0x176
MSR_MISC_ENABLE: Final = 0x1A0
MSR_PAT: Final = 0x277
MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_FMASK = 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084

APIC_DEFAULT_BASE: Final = 0xFEE0_0000
APIC_ENABLED, APIC_BOOT_PROCESSOR = 1 << 11, 1 << 8
# And the base, from bit 12 on (SDM volume 3, 10.4.4)
_APIC_KNOWN: Final = APIC_ENABLED | APIC_BOOT_PROCESSOR | (1 << PHYSICAL_BITS) - 0x1000
_MEMORY_TYPES: Final = frozenset({0, 1, 4, 5, 6, 7})  # UC WC WT WP WB UC- (Intel SDM volume 3, table 11-10)

Check = Callable[["Core", int, int], int]


@attrs.frozen
class Rule:
    """What a processor's own register does.

    Attributes:
        checked: gives what is kept when a value is written, or raises #GP(0); None for one that cannot be written.
        long: only processors of 64 bits have it.
    """

    checked: Check | None
    long: bool = False


def _any(_vcpu: Core, _number: int, value: int) -> int:
    return value


def _no_value(_vcpu: Core, _number: int, _value: int) -> int:
    """Written before CPUID puts the revision there: there is none."""
    return 0


def _address(_vcpu: Core, number: int, value: int) -> int:
    if value >> 47 not in CANONICAL_TOPS:
        raise general_protection(f"MSR {number:#x} takes a canonical address, not {value:#x}")
    return value


def _low_half(_vcpu: Core, number: int, value: int) -> int:
    if value >> 32:
        raise general_protection(f"MSR {number:#x} has 32 bits")
    return value


def _apic_base(_vcpu: Core, _number: int, value: int) -> int:
    if value & ~_APIC_KNOWN:
        raise general_protection(f"APIC_BASE bits {value & ~_APIC_KNOWN:#x} are reserved")
    return value


def _pat(_vcpu: Core, _number: int, value: int) -> int:
    if any(value >> shift & 0xFF not in _MEMORY_TYPES for shift in range(0, 64, 8)):
        raise general_protection(f"PAT {value:#x} has a reserved type")
    return value


def _efer(vcpu: Core, _number: int, value: int) -> int:
    known = EFER_NXE
    # A 32-bit processor has EFER for NX alone.
    if vcpu.machine.kind is MachineKind.X86_64:
        known |= EFER_SCE | EFER_LME | EFER_LMA
    if value & ~known:
        raise general_protection(f"EFER bits {value & ~known:#x} are reserved")
    old = vcpu.msr(MSR_EFER)
    # LME decides the format of the tables that are in use (SDM volume 3, 9.8.5).
    if (value ^ old) & EFER_LME and vcpu.cr0 & CR0_PG:
        raise general_protection("EFER.LME cannot change while paging is on")
    return value & ~EFER_LMA | old & EFER_LMA  # LMA is the CPU's own


RULES: Final[Mapping[int, Rule]] = {
    MSR_PLATFORM_ID: Rule(None),
    MSR_APIC_BASE: Rule(_apic_base),
    MSR_BIOS_SIGN_ID: Rule(_no_value),
    MSR_SYSENTER_CS: Rule(_any),
    MSR_SYSENTER_ESP: Rule(_address),
    MSR_SYSENTER_EIP: Rule(_address),
    MSR_MISC_ENABLE: Rule(_any),
    MSR_PAT: Rule(_pat),
    MSR_EFER: Rule(_efer),
    MSR_STAR: Rule(_any, long=True),
    MSR_LSTAR: Rule(_address, long=True),
    MSR_CSTAR: Rule(_address, long=True),
    MSR_FMASK: Rule(_any, long=True),
    MSR_FS_BASE: Rule(_address, long=True),
    MSR_GS_BASE: Rule(_address, long=True),
    MSR_KERNEL_GS_BASE: Rule(_address, long=True),
    MSR_TSC_AUX: Rule(_low_half),
}
"""The processor's registers, but for the time-stamp counter, which is the clock's."""

KEPT: Final = frozenset({MSR_PLATFORM_ID, MSR_APIC_BASE, MSR_BIOS_SIGN_ID})
"""Those that the engine does not hold; a vCPU keeps them beside it."""


def after_reset(index: int) -> dict[int, int]:
    """What a vCPU keeps at first. CPUID tells of no local APIC: it is off."""
    boot = APIC_BOOT_PROCESSOR if index == 0 else 0
    return {**dict.fromkeys(KEPT, 0), MSR_APIC_BASE: APIC_DEFAULT_BASE | boot}


def _rule(vcpu: Core, number: int) -> Rule:
    rule = RULES.get(number)
    if rule is None or (rule.long and vcpu.machine.kind is not MachineKind.X86_64):
        raise general_protection(f"no MSR {number:#x}")
    return rule


def read_msr(vcpu: Core, number: int) -> int:
    """As rdmsr at level 0: the register, or #GP(0) if the machine does not have it."""
    if number == MSR_TSC:
        return vcpu.machine.clock.ns + vcpu.tsc_offset & 0xFFFFFFFFFFFFFFFF
    _rule(vcpu, number)
    return vcpu.msr(number)


def write_msr(vcpu: Core, number: int, value: int) -> None:
    """As wrmsr at level 0: #GP(0) for an unknown register, reserved bits or a non-canonical address."""
    value &= 0xFFFFFFFFFFFFFFFF
    # One counter, the clock: a write moves this vCPU's distance from it (SDM volume 3, 17.17).
    if number == MSR_TSC:
        vcpu.tsc_offset = value - vcpu.machine.clock.ns
        return
    checked = _rule(vcpu, number).checked
    if checked is None:
        raise general_protection(f"MSR {number:#x} cannot be written")
    vcpu.set_msr(number, checked(vcpu, number, value))
