"""Hooks of struct pv_cpu_ops: privileged instructions, returns to user mode and context switches.

Descriptor tables and the task register are in ``descriptors``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@hookspec(firstresult=True)
def get_debugreg(cpu: Vcpu, regno: int) -> int | None:
    """Read a debug register; called by ptrace, kgdb and the debug trap.

    Args:
        regno: int; 0 to 3, 6 or 7.

    Returns:
        unsigned long: the register.
    """


@hookspec(firstresult=True)
def set_debugreg(cpu: Vcpu, regno: int, value: int) -> None:
    """Write a debug register; called at boot, by ptrace and when a task with breakpoints is switched to.

    Args:
        regno: int; 0 to 3, 6 or 7.
        value: unsigned long; a linear address for 0 to 3, else flags.
    """


@hookspec(firstresult=True)
def clts(cpu: Vcpu) -> None:
    """Clear CR0.TS so that the FPU may be used; called when a task first uses it after a switch.

    Gone with lazy FPU switching.
    """


@hookspec(firstresult=True)
def read_cr0(cpu: Vcpu) -> int | None:
    """Read CR0.

    Returns:
        unsigned long: CR0 as the guest should see it.
    """


@hookspec(firstresult=True)
def write_cr0(cpu: Vcpu, cr0: int) -> None:
    """Write CR0: to set or clear TS, WP and CD.

    Args:
        cr0: unsigned long; the value.

    Raises:
        GuestFault: #GP for a combination that the processor refuses.
    """


@hookspec(firstresult=True)
def read_cr4_safe(cpu: Vcpu) -> int | None:
    """Read CR4, or give 0 on a processor that has none; called when registers are shown and saved.

    Returns:
        unsigned long: CR4 as the guest should see it, or 0.
    """


@hookspec(firstresult=True)
def read_cr4(cpu: Vcpu) -> int | None:
    """Read CR4.

    Returns:
        unsigned long: CR4 as the guest should see it.
    """


@hookspec(firstresult=True)
def write_cr4(cpu: Vcpu, cr4: int) -> None:
    """Write CR4: when features are switched on at boot, and to flush global TLB entries by a change of PGE.

    Args:
        cr4: unsigned long; the value.

    Raises:
        GuestFault: #GP for bits that the processor does not have.
    """


@hookspec(firstresult=True)
def wbinvd(cpu: Vcpu) -> None:
    """Write back and invalidate the caches; called when memory types or page attributes change."""


@hookspec(firstresult=True)
def cpuid(cpu: Vcpu, eax: int, ebx: int, ecx: int, edx: int) -> None:
    """Execute cpuid: the leaf is in *eax and the sub-leaf in *ecx, and all four words receive the answer.

    Args:
        eax: unsigned int *; guest-virtual address of the leaf, then of EAX.
        ebx: unsigned int *; guest-virtual address for EBX.
        ecx: unsigned int *; guest-virtual address of the sub-leaf, then of ECX.
        edx: unsigned int *; guest-virtual address for EDX.
    """


@hookspec(firstresult=True)
def read_msr(cpu: Vcpu, msr: int, err: int) -> int | None:
    """Read a model-specific register.

    Args:
        msr: unsigned int (u32 in the 7.2 layouts); number of the register.
        err: int *; guest-virtual address that receives 0, or -EFAULT if there is no such register. 0 in the
            6.1 and later layouts, whose op has no such argument.

    Returns:
        u64: the register; 0 if there is none.

    Raises:
        GuestFault: #GP if there is no such register and ``err`` is 0.
    """


@hookspec(firstresult=True)
def write_msr(cpu: Vcpu, msr: int, low: int, high: int, val: int) -> int | None:
    """Write a model-specific register.

    Args:
        msr: unsigned int (u32 in the 7.2 layouts); number of the register.
        low: unsigned int; low half of the value, in every layout.
        high: unsigned int; high half of the value, in every layout.
        val: u64; the value, in every layout.

    Returns:
        int in the 2.6 layouts: 0, or -EFAULT if the write was refused. Not used in the 6.1 and later layouts.

    Raises:
        GuestFault: #GP in the 6.1 and later layouts if the write was refused.

    2.6 declares one u64 and passes the two halves, 6.1 takes halves, 7.2 one u64.
    """


@hookspec(firstresult=True)
def read_msr_safe(cpu: Vcpu, msr: int, err: int, val: int) -> int | None:
    """Read a model-specific register that may not exist.

    What comes back is another thing since 6.16: a hook for both looks which of its two addresses is not 0.

    Args:
        msr: unsigned int (u32 in the 7.2 layouts); number of the register.
        err: int *; guest-virtual address that receives 0, or -EIO if there is no such register. 0 in the 7.2 layouts.
        val: u64 *; guest-virtual address that receives the register, in the 7.2 layouts; 0 in others.

    Returns:
        u64: the register; 0 if there is none. In the 7.2 layouts int: 0, or -EIO if there is no such register.
    """


@hookspec(firstresult=True)
def write_msr_safe(cpu: Vcpu, msr: int, low: int, high: int, val: int) -> int | None:
    """Write a model-specific register that may not exist.

    Args:
        msr: unsigned int (u32 in the 7.2 layouts); number of the register.
        low: unsigned int; low half of the value, in every layout.
        high: unsigned int; high half of the value, in every layout.
        val: u64; the value, in every layout.

    Returns:
        int: 0, or -EIO if the write was refused.
    """


@hookspec(firstresult=True)
def read_tsc(cpu: Vcpu) -> int | None:
    """Read the time-stamp counter.

    Returns:
        u64: cycles since reset, from the machine's virtual clock.
    """


@hookspec(firstresult=True)
def read_pmc(cpu: Vcpu, counter: int) -> int | None:
    """Read a performance counter.

    Args:
        counter: int; number of the counter.

    Returns:
        u64: the count, 40 bits.

    Raises:
        GuestFault: #GP if there is no such counter.

    2.6 declares no argument and passes the counter.
    """


@hookspec(firstresult=True)
def set_iopl_mask(cpu: Vcpu, mask: int) -> None:
    """Set the I/O privilege level of the current context; called at context switches between tasks whose levels differ.

    Args:
        mask: unsigned int; the level in bits 12 and 13, as in EFLAGS.
    """


@hookspec(firstresult=True)
def io_delay(cpu: Vcpu) -> None:
    """Wait about a microsecond between accesses to a slow device, as a write to port 0x80 does."""


@hookspec(firstresult=True)
def invalidate_io_bitmap(cpu: Vcpu) -> None:
    """Take the I/O permission bitmap out of force; called at the exit to a user task that has none."""


@hookspec(firstresult=True)
def update_io_bitmap(cpu: Vcpu) -> None:
    """Bring the current task's I/O permission bitmap into force; called at the exit to user mode."""


@hookspec(firstresult=True)
def start_context_switch(cpu: Vcpu, prev: int) -> None:
    """Begin a context switch: what the next ops ask for may be batched until end_context_switch.

    Args:
        prev: struct task_struct *; guest-virtual address of the task that is left.
    """


@hookspec(firstresult=True)
def end_context_switch(cpu: Vcpu, next: int) -> None:
    """End a context switch: everything batched takes effect before this returns.

    Args:
        next: struct task_struct *; guest-virtual address of the task that is entered.
    """


@hookspec(firstresult=True)
def cpu_lazy_mode_enter(cpu: Vcpu) -> None:
    """Begin a context switch: what the next ops ask for may be batched until cpu_lazy_mode_leave."""


@hookspec(firstresult=True)
def cpu_lazy_mode_leave(cpu: Vcpu) -> None:
    """End a context switch: everything batched takes effect before this returns."""


@hookspec(firstresult=True)
def irq_enable_sysexit(cpu: Vcpu) -> None:
    """Enable interrupts and return to user mode by sysexit. Jumped to; does not come back.

    EIP comes from EDX and ESP from ECX.

    Native: sti; sysexit.
    """


@hookspec(firstresult=True)
def iret(cpu: Vcpu) -> None:
    """Return from an interrupt by the frame at the stack pointer. Jumped to; does not come back.

    Args:
        cpu: the calling vCPU; the hook leaves it where the frame says.

    Raises:
        GuestFault: what the processor raises for a frame that it refuses.

    Native: iret.
    """
