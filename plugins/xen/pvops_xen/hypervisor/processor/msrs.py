"""Model-specific registers of a PV guest on an Intel host: each with its rule, and what Xen does about all others.

A row says what a read gives, what a write does, and which function of Xen 4.17 has it so. What is in no row is #GP(0)
for both (``read_msr`` and ``write_msr`` of pv/emul-priv-op.c).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal

import attrs

from pvops_core.machine.cpu.faults import general_protection
from pvops_core.x86 import MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE
from pvops_xen.domain.stubs import hypercall_page
from pvops_xen.hypervisor.abi import PAGE_MASK, PAGE_SHIFT, TRAP_GP_FAULT, Segbase
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.processor.tables import set_segment_base

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

REFUSED: Final = None
DROPPED: Final = "dropped"
KEPT: Final = "kept"
_BASES: Final = {MSR_FS_BASE: Segbase.FS, MSR_GS_BASE: Segbase.GS_KERNEL, MSR_KERNEL_GS_BASE: Segbase.GS_USER}
_XEN: Final = 0x4000
"""High half of the numbers of Xen's own."""
_APIC_BASE, _BOOT_PROCESSOR = 0xFEE0_0800, 1 << 8  # where it is after a reset, and enabled
_CPUID_FAULTING: Final = 1 << 31
# IA32_ARCH_CAPABILITIES: an emulated processor speculates about nothing, so it has none of the flaws of those that do
# (RDCL SSB MDS PSCHANGE_MC TAA SBDR_SSDP FBSDP PSDP BHI GDS RFDS ITS, and no need to flush the L1 data cache).
_ARCH_CAPABILITIES: Final = sum(1 << bit for bit in (0, 3, 4, 5, 6, 8, 13, 14, 15, 20, 26, 27, 62))
_MCG_CAP: Final = 1 << 24 | 1 << 11 | 1 << 10 | 2  # SER_P TES_P CMCI_P, and two banks
_ALL_ONES: Final = (1 << 64) - 1
# Fast strings as on the host; BTS_UNAVAIL PEBS_UNAVAIL XTPR_DISABLE by guest_misc_enable.
_MISC_ENABLE: Final = 1 | 1 << 11 | 1 << 12 | 1 << 23
_EVERYTHING: Final = (0, 1 << 24)
"""A range so large that the machine drops all translated code."""
_PAT: Final = 0x0501_0007_0406  # as Xen sets it

Reader = Callable[["Hypervisor", "Vcpu", int], "int | None"]
Writer = Callable[["Hypervisor", "Vcpu", int, int], bool]


def _tsc(hv: Hypervisor, _cpu: Vcpu, _index: int) -> int | None:
    return hv.machine.clock.ns


def _apic_base(_hv: Hypervisor, cpu: Vcpu, _index: int) -> int | None:
    return _APIC_BASE | (0 if cpu.index else _BOOT_PROCESSOR)


def _faulting(hv: Hypervisor, cpu: Vcpu, _index: int) -> int | None:
    return int(hv.state(cpu).cpuid_faulting)


def _set_faulting(hv: Hypervisor, cpu: Vcpu, _index: int, value: int) -> bool:
    if value in {0, 1}:
        # Only bit 0 is allowed (``guest_wrmsr``, MSR_INTEL_MISC_FEATURES_ENABLES).
        hv.state(cpu).cpuid_faulting = bool(value)
    return value in {0, 1}


def _kept(hv: Hypervisor, cpu: Vcpu, index: int) -> int | None:
    return hv.state(cpu).msrs.get(index, 0)


def _zero_alone(_hv: Hypervisor, _cpu: Vcpu, _index: int, value: int) -> bool:
    return value == 0


def _efer(hv: Hypervisor, _cpu: Vcpu, _index: int) -> int | None:
    """SCE LME LMA NXE; a 32-bit guest of an Intel host sees the last one alone."""
    return 0xD01 if hv.abi.bits == 64 else 0x800


def _same_efer(hv: Hypervisor, cpu: Vcpu, index: int, value: int) -> bool:
    return value == _efer(hv, cpu, index)


def _base(hv: Hypervisor, cpu: Vcpu, index: int) -> int | None:
    if hv.abi.bits == 32:
        return None
    # SHADOW_GS_BASE is the other mode's base, which Xen keeps; the other two are live.
    return hv.state(cpu).gs_base_user if index == MSR_KERNEL_GS_BASE else cpu.msr(index)


def _set_base(hv: Hypervisor, cpu: Vcpu, index: int, value: int) -> bool:
    return not set_segment_base(hv, cpu, _BASES[index], value)  # -ENOSYS for a 32-bit guest


def _install_stubs(hv: Hypervisor, _cpu: Vcpu, _index: int, value: int) -> bool:
    """The page of hypercall stubs, into a frame of the guest's that is or may be mapped writable."""
    mfn = value >> PAGE_SHIFT
    # The frame must be the guest's and may be written: Xen writes it through the guest's own rights.
    if value & PAGE_MASK or hv.validator.get_page_and_type(mfn, FrameType.WRITABLE):
        hv.log(f"Bad GMFN {mfn:x} or page of hypercalls to MSR 40000000")
        return False
    hv.memory.write(mfn << PAGE_SHIFT, hypercall_page(hv.abi.bits))
    hv.machine.invalidate([_EVERYTHING])  # nobody knows where it is mapped
    hv.validator.put_page_and_type(mfn)
    return True


@attrs.frozen
class Msr:
    """One register, or some in a row.

    Attributes:
        name: as in Xen's msr-index.h.
        first, last: numbers.
        read: what a read gives: a number, something to ask (None: #GP), or REFUSED.
        write: DROPPED (taken, no effect), KEPT (read back), something to ask (False: #GP), or REFUSED.
        rule: the function of Xen's.
    """

    name: str
    first: int
    last: int
    read: int | Reader | None
    write: Writer | Literal["dropped", "kept"] | None
    rule: str


def _one(
    name: str, index: int, read: int | Reader | None, write: Writer | Literal["dropped", "kept"] | None, rule: str
) -> Msr:
    return Msr(name, index, index, read, write, rule)


MSRS: Final = (
    Msr("P5_MC_ADDR, P5_MC_TYPE", 0x0, 0x1, 0, REFUSED, "vmce_rdmsr"),
    _one("TSC", 0x10, _tsc, REFUSED, "read_msr"),
    _one("PLATFORM_ID", 0x17, 0, REFUSED, "guest_rdmsr: the host's"),
    _one("APIC_BASE", 0x1B, _apic_base, REFUSED, "read_msr: BSP on the first vCPU"),
    _one("TEST_CTRL", 0x33, REFUSED, REFUSED, "guest_rdmsr: not offered"),
    _one("FEATURE_CONTROL", 0x3A, 1, REFUSED, "guest_rdmsr: locked, no VMX"),
    Msr("SPEC_CTRL, PRED_CMD", 0x48, 0x49, REFUSED, REFUSED, "guest_rdmsr: no IBRSB"),
    Msr("PPIN_CTL, PPIN", 0x4E, 0x4F, REFUSED, REFUSED, "guest_rdmsr: not offered"),
    _one("UCODE_WRITE", 0x79, REFUSED, REFUSED, "guest_wrmsr: not for PV"),
    _one("UCODE_REV", 0x8B, 0, _zero_alone, "guest_wrmsr: 0 is how to ask for it"),
    Msr("PERFCTR0..7", 0xC1, 0xC8, 0, DROPPED, "vpmu_do_msr: off"),
    _one("PLATFORM_INFO", 0xCE, _CPUID_FAULTING, REFUSED, "guest_rdmsr: cpuid can fault"),
    _one("CORE_CAPABILITIES", 0xCF, REFUSED, REFUSED, "guest_rdmsr: not offered"),
    Msr("MPERF, APERF", 0xE7, 0xE8, REFUSED, DROPPED, "write_msr: no cpufreq controller"),
    _one("ARCH_CAPABILITIES", 0x10A, _ARCH_CAPABILITIES, REFUSED, "guest_rdmsr: the policy's"),
    _one("FLUSH_CMD", 0x10B, REFUSED, REFUSED, "guest_wrmsr: no L1D_FLUSH"),
    _one("TSX_FORCE_ABORT", 0x10F, REFUSED, REFUSED, "guest_rdmsr: not offered"),
    Msr("TSX_CTRL, MCU_OPT_CTRL", 0x122, 0x123, REFUSED, REFUSED, "guest_rdmsr: not offered"),
    _one("MISC_FEATURES_ENABLES", 0x140, _faulting, _set_faulting, "guest_wrmsr: CPUID_FAULTING alone"),
    _one("MCG_CAP", 0x179, _MCG_CAP, DROPPED, "vmce_rdmsr, vmce_wrmsr"),
    _one("MCG_STATUS", 0x17A, _kept, KEPT, "vmce_wrmsr"),
    _one("MCG_CTL", 0x17B, 0, DROPPED, "vmce_wrmsr: no MCG_CTL_P"),
    Msr("EVNTSEL0..3", 0x186, 0x189, 0, DROPPED, "vpmu_do_msr: off"),
    _one("PERF_STATUS", 0x198, 0, REFUSED, "guest_rdmsr: no cpufreq controller"),
    _one("PERF_CTL", 0x199, 0, DROPPED, "guest_wrmsr: no cpufreq controller"),
    _one("THERM_CONTROL", 0x19A, REFUSED, DROPPED, "write_msr: not the hardware's domain"),
    _one("THERM_STATUS", 0x19C, 0, REFUSED, "guest_rdmsr"),
    _one("MISC_ENABLE", 0x1A0, _MISC_ENABLE, DROPPED, "guest_misc_enable; write_msr: invalid"),
    _one("ENERGY_PERF_BIAS", 0x1B0, REFUSED, DROPPED, "write_msr: not the hardware's domain"),
    _one("CR_PAT", 0x277, _PAT, REFUSED, "read_msr: XEN_MSR_PAT"),
    Msr("MC0_CTL2, MC1_CTL2", 0x280, 0x281, _kept, KEPT, "vmce_intel_wrmsr"),
    Msr("MC2_CTL2..MC31_CTL2", 0x282, 0x29F, 0, DROPPED, "vmce_rdmsr: two banks"),
    Msr("FIXED_CTR0..2", 0x309, 0x30B, 0, DROPPED, "vpmu_do_msr: off"),
    _one("PERF_CAPABILITIES", 0x345, 0, REFUSED, "read_msr"),
    Msr("FIXED_CTR_CTRL..GLOBAL_OVF_CTRL", 0x38D, 0x390, 0, DROPPED, "vpmu_do_msr: off"),
    _one("MC0_CTL", 0x400, _ALL_ONES, DROPPED, "bank_mce_rdmsr: all ones"),
    Msr("MC0_STATUS..MC0_MISC", 0x401, 0x403, 0, _zero_alone, "bank_mce_wrmsr"),
    _one("MC1_CTL", 0x404, _ALL_ONES, DROPPED, "bank_mce_rdmsr: all ones"),
    Msr("MC1_STATUS..MC1_MISC", 0x405, 0x407, 0, _zero_alone, "bank_mce_wrmsr"),
    Msr("MC2_CTL..MC31_MISC", 0x408, 0x47F, 0, DROPPED, "vmce_rdmsr: two banks"),
    _one("MCG_EXT_CTL", 0x4D0, REFUSED, REFUSED, "vmce_rdmsr: no MCG_LMCE_P"),
    Msr("RTIT_OUTPUT_BASE..RTIT_ADDR_B7", 0x560, 0x58F, REFUSED, REFUSED, "guest_rdmsr: not offered"),
    Msr("U_CET..INTERRUPT_SSP_TABLE", 0x6A0, 0x6A8, REFUSED, REFUSED, "guest_rdmsr: not offered"),
    Msr("x2APIC", 0x800, 0x8FF, REFUSED, REFUSED, "guest_rdmsr: for HVM"),
    _one("BNDCFGS", 0xD90, REFUSED, REFUSED, "guest_rdmsr: no MPX"),
    _one("XSS", 0xDA0, REFUSED, REFUSED, "guest_rdmsr: no XSAVES"),
    _one("Xen's page of hypercalls", 0x4000_0000, 0, _install_stubs, "guest_wrmsr_xen"),
    Msr("Xen's other numbers", 0x4000_0001, 0x4000_02FF, REFUSED, REFUSED, "guest_rdmsr_xen"),
    _one("EFER", 0xC000_0080, _efer, _same_efer, "guest_efer; write_msr: the value it has"),
    Msr("FS_BASE, GS_BASE, SHADOW_GS_BASE", MSR_FS_BASE, MSR_KERNEL_GS_BASE, _base, _set_base, "write_msr: canonical"),
    _one("TSC_AUX", 0xC000_0103, REFUSED, REFUSED, "guest_rdmsr: no RDTSCP"),
    Msr("LWP_CFG, LWP_CBADDR", 0xC000_0105, 0xC000_0106, REFUSED, REFUSED, "guest_rdmsr: not offered"),
    _one("NB_CFG", 0xC001_001F, 0, DROPPED, "read_msr: on any host"),
)
# What the host's processor has of what a guest is refused (Intel SDM volume 4: family 6, model 2AH, and the
# architectural ones): the first and last of each row of numbers.
_HOST: Final = (
    *((0x1B, 0x1B), (0x34, 0x35), (0xE2, 0xE2), (0xE4, 0xE4), (0xE7, 0xE8), (0xFE, 0xFE), (0x13C, 0x13C)),
    *((0x174, 0x176), (0x18A, 0x18D), (0x19A, 0x19B), (0x1A2, 0x1A2), (0x1A6, 0x1A6), (0x1AA, 0x1AA), (0x1AD, 0x1AD)),
    *((0x1B0, 0x1B2), (0x1C8, 0x1C9), (0x1D9, 0x1D9), (0x1DD, 0x1DE), (0x1F2, 0x1F3), (0x1FC, 0x1FC), (0x200, 0x213)),
    *((0x250, 0x250), (0x258, 0x259), (0x268, 0x26F), (0x2FF, 0x2FF), (0x3F1, 0x3F1), (0x3F6, 0x3F6), (0x3F8, 0x3FA)),
    *((0x3FC, 0x3FE), (0x480, 0x48F), (0x4C1, 0x4C8), (0x600, 0x600), (0x606, 0x606), (0x60A, 0x60D), (0x610, 0x611)),
    *((0x614, 0x614), (0x638, 0x63A), (0x640, 0x642), (0x680, 0x68F), (0x6C0, 0x6CF), (0x6E0, 0x6E0)),
    *((0xC000_0080, 0xC000_0084), (0xC000_0100, 0xC000_0103)),
)
_ROWS: Final[Mapping[int, Msr]] = {index: row for row in MSRS for index in range(row.first, row.last + 1)}


def read_msr(hv: Hypervisor, cpu: Vcpu, index: int) -> int:
    """``rdmsr`` of a kernel.

    One that has no handler for #GP yet reads 0 where the host's processor has the register.

    Raises:
        GuestFault: #GP(0).
    """
    row = _ROWS.get(index)
    read = None if row is None else row.read
    value = read(hv, cpu, index) if callable(read) else read
    if value is not None:
        return value
    # ``read_msr``: a guest without a handler for #GP yet is told 0 for what the host has.
    if not hv.state(cpu).traps[TRAP_GP_FAULT].address and index >> 16 != _XEN and _on_host(index):
        hv.log(f"faking RDMSR {index:#010x}")
        return 0
    if row is None:
        hv.log(f"RDMSR {index:#010x} unimplemented")
    raise general_protection(f"rdmsr {index:#x}")


def _on_host(index: int) -> bool:
    return any(first <= index <= last for first, last in _HOST)


def write_msr(hv: Hypervisor, cpu: Vcpu, index: int, value: int) -> None:
    """``wrmsr`` of a kernel.

    Raises:
        GuestFault: #GP(0).
    """
    row = _ROWS.get(index)
    write = row.write if row is not None else REFUSED
    if write == KEPT:
        # Registers that only the guest reads: they are kept for it.
        hv.state(cpu).msrs[index] = value
    elif callable(write) and write(hv, cpu, index, value):
        return
    elif write != DROPPED:
        if row is None:
            hv.log(f"WRMSR {index:#010x} val {value:#018x} unimplemented")
        raise general_protection(f"wrmsr {index:#x}")
