"""The interrupt flag and halting: asm/irqflags.h, native_save_fl and its neighbours; native_init_IRQ.

Source of the controller's programming: arch/i386/kernel/i8259.c (2.6.23), init_8259A; arch/x86/kernel/i8259.c (6.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

FIRST_VECTOR: Final = 0x20
"""Vector of request 0: FIRST_EXTERNAL_VECTOR. (6.1 rounds it up to 0x30 for the sake of its I/O APIC vectors.)"""


class NativeIrqOps(NativeGroup):
    """``struct pv_irq_ops`` of every layout."""

    @hookimpl
    def save_fl(self, cpu: Vcpu) -> int:
        """native_save_fl: pushf; pop."""
        return cpu.insn.pushf()

    @hookimpl
    def restore_fl(self, cpu: Vcpu, flags: int) -> None:
        """native_restore_fl: push flags; popf."""
        cpu.insn.popf(flags)

    @hookimpl
    def irq_disable(self, cpu: Vcpu) -> None:
        """native_irq_disable: cli."""
        cpu.insn.cli()

    @hookimpl
    def irq_enable(self, cpu: Vcpu) -> None:
        """native_irq_enable: sti."""
        cpu.insn.sti()

    @hookimpl
    def safe_halt(self, cpu: Vcpu) -> None:
        """native_safe_halt: sti; hlt, with no interrupt between the two."""
        # sti's shadow is what keeps an interrupt out between them.
        cpu.insn.sti()
        cpu.insn.hlt()

    @hookimpl
    def halt(self, cpu: Vcpu) -> None:
        """native_halt: hlt, whatever the interrupt flag."""
        cpu.insn.hlt()

    @hookimpl
    def init_IRQ(self, cpu: Vcpu) -> None:  # noqa: N802  # the kernel's name
        """native_init_IRQ, init_8259A(0): both controllers initialised and every line but the cascade masked."""
        base = FIRST_VECTOR
        out = cpu.insn.out
        # Masked while they are being initialised.
        out(0x21, 0xFF, 1)
        out(0xA1, 0xFF, 1)
        # ICW1 to ICW4 in the order that the chip wants; wiring is ICW3: the master's line 2, the slave's number 2.
        for port, vector, wiring in ((0x20, base, 0x04), (0xA0, base + 8, 0x02)):
            out(port, 0x11, 1)  # ICW1: edge-triggered, cascaded, ICW4 follows
            out(port + 1, vector, 1)
            out(port + 1, wiring, 1)
            out(port + 1, 0x01, 1)  # ICW4: 8086 mode, end of interrupt by command
        # 0xfb leaves the cascade open, or no line of the slave would ever come.
        out(0x21, 0xFB, 1)
        out(0xA1, 0xFF, 1)
