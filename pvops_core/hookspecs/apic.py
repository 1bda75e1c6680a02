"""Hooks of struct pv_apic_ops (2.6.23 and 2.6.24 with CONFIG_X86_LOCAL_APIC)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@hookspec(firstresult=True)
def apic_write(cpu: Vcpu, reg: int, v: int) -> None:
    """Write a local APIC register.

    Args:
        reg: unsigned long; offset in the APIC's page in bytes, a multiple of 16.
        v: unsigned long; the value, 32 bits wide.
    """


@hookspec(firstresult=True)
def apic_write_atomic(cpu: Vcpu, reg: int, v: int) -> None:
    """Write a local APIC register by an exchange, for processors on which a plain write after a read may be lost.

    Args:
        reg: unsigned long; offset in the APIC's page in bytes, a multiple of 16.
        v: unsigned long; the value, 32 bits wide.
    """


@hookspec(firstresult=True)
def apic_read(cpu: Vcpu, reg: int) -> int | None:
    """Read a local APIC register.

    Args:
        reg: unsigned long; offset in the APIC's page in bytes, a multiple of 16.

    Returns:
        unsigned long: the value, 32 bits wide.
    """


@hookspec(firstresult=True)
def setup_boot_clock(cpu: Vcpu) -> None:
    """Calibrate and start the boot CPU's local timer; called once before other CPUs start.

    Native: setup_boot_APIC_clock.
    """


@hookspec(firstresult=True)
def setup_secondary_clock(cpu: Vcpu) -> None:
    """Start the local timer of a CPU that has just come up; called on that CPU.

    Native: setup_secondary_APIC_clock.
    """


@hookspec(firstresult=True)
def startup_ipi_hook(cpu: Vcpu, phys_apicid: int, start_eip: int, start_esp: int) -> None:
    """Tell the platform where a CPU begins, before the start-up interrupt is sent to it.

    Args:
        phys_apicid: int; APIC number of the CPU to be started.
        start_eip: unsigned long; guest-virtual address of its first instruction.
        start_esp: unsigned long; its first stack pointer.
    """
