"""Hooks of struct pv_cpu_ops: descriptor tables, the task register and segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@hookspec(firstresult=True)
def load_tr_desc(cpu: Vcpu) -> None:
    """Load the task register with the selector of this CPU's TSS; called once on each CPU."""


@hookspec(firstresult=True)
def load_gdt(cpu: Vcpu, dtr: int) -> None:
    """Load GDTR; called on each CPU at boot and when its table moves.

    Args:
        dtr: const struct desc_ptr * (2.6: const struct Xgt_desc_struct *); guest-virtual address of u16
            limit, then base, unaligned.

    Raises:
        GuestFault: #GP if the platform does not accept the table.
    """


@hookspec(firstresult=True)
def load_idt(cpu: Vcpu, dtr: int) -> None:
    """Load IDTR; called on each CPU at boot.

    Args:
        dtr: const struct desc_ptr * (2.6: const struct Xgt_desc_struct *); guest-virtual address of u16
            limit, then base, unaligned.
    """


@hookspec(firstresult=True)
def store_gdt(cpu: Vcpu, dtr: int) -> None:
    """Store GDTR.

    Args:
        dtr: struct Xgt_desc_struct *; guest-virtual address that receives u16 limit, then base, unaligned.
    """


@hookspec(firstresult=True)
def store_idt(cpu: Vcpu, dtr: int) -> None:
    """Store IDTR.

    Args:
        dtr: struct Xgt_desc_struct *; guest-virtual address that receives u16 limit, then base, unaligned.
    """


@hookspec(firstresult=True)
def set_ldt(cpu: Vcpu, desc: int, entries: int) -> None:
    """Make a table the LDT of the current address space, or none; called at a switch between address spaces with LDTs.

    Args:
        desc: const void *; guest-virtual address of the table.
        entries: unsigned int; number of descriptors; 0 for no LDT.
    """


@hookspec(firstresult=True)
def store_tr(cpu: Vcpu) -> int | None:
    """Read the task register.

    Returns:
        unsigned long: the selector.
    """


@hookspec(firstresult=True)
def load_tls(cpu: Vcpu, t: int, cpu_nr: int) -> None:
    """Copy a thread's TLS descriptors into a CPU's GDT; called at every context switch.

    Args:
        t: struct thread_struct *; guest-virtual address; the three 8-byte descriptors come first in it.
        cpu_nr: unsigned int; number of the CPU whose GDT is written: the caller's own.
    """


@hookspec(firstresult=True)
def load_gs_index(cpu: Vcpu, idx: int) -> None:
    """Load a selector into GS of user mode, keeping the kernel's GS base; 0 is loaded where the selector is not valid.

    Args:
        idx: unsigned int; the selector.
    """


@hookspec(firstresult=True)
def write_ldt_entry(cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, desc: int) -> None:
    """Write a descriptor of an LDT, which may be in use; called by modify_ldt.

    Args:
        dt: struct desc_struct *; guest-virtual address of the table.
        entrynum: int; number of the descriptor.
        low: u32; its first word (2.6); 0 in the 6.1 layouts.
        high: u32; its second word (2.6); 0 in the 6.1 layouts.
        desc: const void *; guest-virtual address of the 8-byte descriptor (6.1); 0 in the 2.6 layouts.
    """


@hookspec(firstresult=True)
def write_gdt_entry(cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, desc: int, size: int) -> None:
    """Write a descriptor of a GDT, which may be in use.

    Args:
        dt: struct desc_struct *; guest-virtual address of the table.
        entrynum: int; number of the descriptor.
        low: u32; its first word (2.6); 0 in the 6.1 layouts.
        high: u32; its second word (2.6); 0 in the 6.1 layouts.
        desc: const void *; guest-virtual address of the descriptor (6.1); 0 in the 2.6 layouts.
        size: int; DESC_TSS (0x9), DESC_LDT (0x2) or DESCTYPE_S (0x10): the first two are 16 bytes on x86_64;
            0 in the 2.6 layouts.
    """


@hookspec(firstresult=True)
def write_idt_entry(cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, gate: int) -> None:
    """Write a gate of an IDT, which may be in use.

    Args:
        dt: gate_desc * (2.6: struct desc_struct *); guest-virtual address of the table.
        entrynum: int; the vector.
        low: u32; first word of the gate (2.6); 0 in the 6.1 layouts.
        high: u32; second word of the gate (2.6); 0 in the 6.1 layouts.
        gate: const gate_desc *; guest-virtual address of the gate, 16 bytes on x86_64 (6.1); 0 in the 2.6
            layouts.
    """


@hookspec(firstresult=True)
def alloc_ldt(cpu: Vcpu, ldt: int, entries: int) -> None:
    """Called when memory becomes an LDT and is filled: Xen makes it read-only.

    Args:
        ldt: struct desc_struct *; guest-virtual address of the table.
        entries: unsigned int; number of descriptors.
    """


@hookspec(firstresult=True)
def free_ldt(cpu: Vcpu, ldt: int, entries: int) -> None:
    """Called before the memory of an LDT is freed: Xen makes it read-write.

    Args:
        ldt: struct desc_struct *; guest-virtual address of the table.
        entries: unsigned int; number of descriptors.
    """


@hookspec(firstresult=True)
def load_esp0(cpu: Vcpu, tss: int, thread: int) -> None:
    """Set the stack that traps from user mode start on; called at every context switch (2.6).

    Args:
        tss: struct tss_struct *; guest-virtual address of the CPU's TSS: esp0 at 4, ss1 (the sysenter
            selector) at 16.
        thread: struct thread_struct *; guest-virtual address; esp0 at 24, sysenter_cs at 28.

    Source: asm-i386/processor.h.
    """


@hookspec(firstresult=True)
def load_sp0(cpu: Vcpu, sp0: int) -> None:
    """Set the stack that traps from user mode start on; called at context switches (6.1).

    Args:
        sp0: unsigned long; guest-virtual address of the stack's top.
    """
