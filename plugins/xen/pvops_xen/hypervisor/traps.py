"""Exceptions: which are the guest's to handle, and how they reach it (xen/arch/x86/traps.c, pv/traps.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.faults import WITH_ERROR_CODE
from pvops_xen.hypervisor.abi import TRAP_GP_FAULT, TRAP_PAGE_FAULT, VmAssist
from pvops_xen.hypervisor.bounce import enter, in_guest_kernel

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

NAMES: Final = (
    "divide_error", "debug", "nmi", "int3", "overflow", "bounds", "invalid_op", "device_not_available",
    "double_fault", "coprocessor_segment_overrun", "invalid_tss", "segment_not_present", "stack_segment",
    "general_protection", "page_fault", "spurious_interrupt", "coprocessor_error", "alignment_check",
    "machine_check", "simd_error",
)  # fmt: skip
PF_PROT: Final = 1
PF_WRITE: Final = 2
PF_USER: Final = 4
PF_RSVD: Final = 8
PF_INSN: Final = 16


def name_of(vector: int) -> str:
    """Name of an exception, for counts and messages."""
    return NAMES[vector] if vector < len(NAMES) else f"vector_{vector}"


def inject(hv: Hypervisor, cpu: Vcpu, vector: int, error_code: int | None) -> None:
    """``pv_inject_event``: enter the guest at its handler for a vector; without one the domain crashes."""
    if vector in WITH_ERROR_CODE and error_code is None:
        error_code = 0
    entry = hv.state(cpu).traps[vector]
    hv.stats.traps[name_of(vector)] += 1
    if not entry.address:
        hv.crash(f"Unhandled: vec {vector}, {name_of(vector)}[{error_code or 0:04x}] at {cpu.rip:#x}")
        return
    enter(hv, cpu, entry, error_code if vector in WITH_ERROR_CODE else None)


def inject_page_fault(hv: Hypervisor, cpu: Vcpu, error_code: int, address: int) -> None:
    """A page fault: CR2 goes to vcpu_info, and the user bit says in which of its modes the guest was."""
    state = hv.state(cpu)
    state.cr2 = address
    word = hv.abi.word
    hv.memory.write(state.info + hv.abi.cr2, (address & hv.abi.mask).to_bytes(word, "little"))
    error_code = error_code & ~PF_USER if in_guest_kernel(hv, cpu) else error_code | PF_USER
    inject(hv, cpu, TRAP_PAGE_FAULT, error_code)


def inject_general_protection(hv: Hypervisor, cpu: Vcpu, error_code: int = 0) -> None:
    """#GP."""
    inject(hv, cpu, TRAP_GP_FAULT, error_code)


def software_interrupt(hv: Hypervisor, cpu: Vcpu, vector: int) -> None:
    """``int n`` other than the hypercall: allowed if the table's DPL says so, else #GP at the instruction."""
    if vector in {3, 4}:  # gates of their own, open to every ring
        inject(hv, cpu, vector, None)
        return
    entry = hv.state(cpu).traps[vector]
    kernel_ring = 0 if hv.domain.assisted(VmAssist.ARCHITECTURAL_IOPL) else 1
    ring = kernel_ring if in_guest_kernel(hv, cpu) else 3
    if entry.dpl >= ring and entry.address:
        hv.stats.traps[name_of(vector)] += 1
        enter(hv, cpu, entry)
        return
    cpu.rip -= 2  # int n is two bytes long
    inject_general_protection(hv, cpu, vector << 3 | 2)
