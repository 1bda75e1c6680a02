"""Hooks of struct pv_irq_ops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@hookspec(firstresult=True)
def save_fl(cpu: Vcpu) -> int | None:
    """Read the interrupt state; called by every local_irq_save and irqs_disabled.

    Returns:
        unsigned long: bit 9 (X86_EFLAGS_IF) is set if interrupts are enabled; the other bits mean nothing.

    Callee-save since 2.6.30.
    """


@hookspec(firstresult=True)
def restore_fl(cpu: Vcpu, flags: int) -> None:
    """Set the interrupt state that save_fl gave; called by every local_irq_restore.

    Args:
        flags: unsigned long; bit 9 (X86_EFLAGS_IF) enables interrupts, the other bits mean nothing.

    Gone in 5.12 (irq_enable does it).
    """


@hookspec(firstresult=True)
def irq_disable(cpu: Vcpu) -> None:
    """Disable interrupts; called by every local_irq_disable.

    Callee-save since 2.6.30.
    """


@hookspec(firstresult=True)
def irq_enable(cpu: Vcpu) -> None:
    """Enable interrupts; called by every local_irq_enable. What is pending is delivered before the guest goes on.

    Callee-save since 2.6.30.
    """


@hookspec(firstresult=True)
def safe_halt(cpu: Vcpu) -> None:
    """Enable interrupts and wait for one, without a gap between in which one could be missed; called by the idle loop.

    Native: sti; hlt.
    """


@hookspec(firstresult=True)
def halt(cpu: Vcpu) -> None:
    """Wait with interrupts as they are: with them off, for ever. Called when a CPU goes offline or the kernel has died.

    Native: hlt.
    """
