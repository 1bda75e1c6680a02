"""Exceptions: which are the guest's to handle, and how they reach it (xen/arch/x86/traps.c, pv/traps.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import WITH_ERROR_CODE
from pvops_xen.hypervisor.abi import TRAP_GP_FAULT, TRAP_PAGE_FAULT, VmAssist
from pvops_xen.hypervisor.memory.walk import told
from pvops_xen.hypervisor.processor.bounce import enter, in_guest_kernel

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.machine.cpu.faults import GuestFault
    from pvops_xen.hypervisor.core import Hypervisor

NAMES: Final = (
    "divide_error", "debug", "nmi", "int3", "overflow", "bounds", "invalid_op", "device_not_available",
    "double_fault", "coprocessor_segment_overrun", "invalid_tss", "segment_not_present", "stack_segment",
    "general_protection", "page_fault", "spurious_interrupt", "coprocessor_error", "alignment_check",
    "machine_check", "simd_error",
)  # fmt: skip
_INT80: Final = 0x80
PF_PROT: Final = 1
PF_WRITE: Final = 2
PF_USER: Final = 4
PF_RSVD: Final = 8
PF_INSN: Final = 16


def name_of(vector: int) -> str:
    """Name of an exception, for counts and messages."""
    return NAMES[vector] if vector < len(NAMES) else f"vector_{vector}"


def inject(
    hv: Hypervisor, cpu: Vcpu, vector: int, error_code: int | None, selectors: tuple[int, int] | None = None
) -> None:
    """``pv_inject_event``: enter the guest at its handler for a vector; without one the domain crashes.

    ``selectors`` are the CS and SS that the frame shows instead of the CPU's.
    """
    if vector in WITH_ERROR_CODE and error_code is None:
        error_code = 0
    entry = hv.state(cpu).traps[vector]
    hv.stats.traps[name_of(vector)] += 1
    # A vector without a handler is the end of the domain: nobody would ever handle it.
    if entry.missing(hv.abi.bits):
        unhandled = f"Unhandled: vec {vector}, {name_of(vector)}[{error_code or 0:04x}]"
        if vector == TRAP_PAGE_FAULT:
            for line in (unhandled, *told(hv, cpu.index, hv.state(cpu).cr2)):
                hv.log(line)
        hv.crash(f"{unhandled} at {cpu.rip:#x}")
        return
    enter(hv, cpu, entry, error_code if vector in WITH_ERROR_CODE else None, selectors=selectors)


def inject_page_fault(
    hv: Hypervisor, cpu: Vcpu, error_code: int, address: int, selectors: tuple[int, int] | None = None
) -> None:
    """A page fault: CR2 goes to vcpu_info, and the user bit says in which of its modes the guest was."""
    state = hv.state(cpu)
    # What the guest reads is in vcpu_info; Xen keeps it too, for guests that ask by mov from CR2.
    state.cr2 = address
    word = hv.abi.word
    # ``arch.cr2`` is a word of the guest's width (``struct arch_vcpu_info``).
    hv.memory.write(state.info + hv.abi.cr2, (address & hv.abi.mask).to_bytes(word, "little"))
    kernel = selectors[0] & 3 == 1 if selectors and hv.abi.bits == 32 else in_guest_kernel(hv, cpu)
    # To the processor both modes are user mode; only the guest's own flag tells them apart.
    error_code = error_code & ~PF_USER if kernel else error_code | PF_USER
    inject(hv, cpu, TRAP_PAGE_FAULT, error_code, selectors)


def inject_fault(hv: Hypervisor, cpu: Vcpu, fault: GuestFault, selectors: tuple[int, int] | None = None) -> None:
    """A fault that was found in the guest's place."""
    if fault.vector == TRAP_PAGE_FAULT:
        inject_page_fault(hv, cpu, fault.error_code or 0, fault.address or 0, selectors)
    else:
        inject(hv, cpu, fault.vector, fault.error_code, selectors)


def inject_general_protection(hv: Hypervisor, cpu: Vcpu, error_code: int = 0) -> None:
    """#GP."""
    inject(hv, cpu, TRAP_GP_FAULT, error_code)


def kernel_ring(hv: Hypervisor) -> int:
    """The ring that a guest's kernel counts as where privilege is compared."""
    return 0 if hv.domain.assisted(VmAssist.ARCHITECTURAL_IOPL) else 1


def software_interrupt(hv: Hypervisor, cpu: Vcpu, vector: int) -> None:
    """``int n`` other than the hypercall: allowed if the table's DPL says so, else #GP at the instruction.

    Vectors 3 and 4 have gates of their own that are open to every ring, and so has 0x80 where the guest has a handler.
    """
    entry = hv.state(cpu).traps[vector]
    # int3 and into are delivered whatever the gate's level (``do_int3``).
    if vector in {3, 4}:
        inject(hv, cpu, vector, None)
    elif vector == _INT80 and not entry.missing(hv.abi.bits):
        hv.stats.traps[name_of(vector)] += 1
        enter(hv, cpu, entry)
    elif entry.dpl >= (kernel_ring(hv) if in_guest_kernel(hv, cpu) else 3):
        inject(hv, cpu, vector, None)
    else:
        cpu.rip -= 2  # int n is two bytes long
        inject_general_protection(hv, cpu, vector << 3 | 2)
