"""Boots a kernel's image on a PC: firmware's tables, and the boot loader's work by boot.rst; then it is on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.guests import Kernel
from pvops_core.machine.cpu.model.msrs import APIC_ENABLED, MSR_APIC_BASE
from pvops_native import apics
from pvops_native.linux import loader
from pvops_native.textwatch import TextWatch

if TYPE_CHECKING:
    from pvops_native.platform import NativePlatform


def load_kernel(platform: NativePlatform) -> None:
    """Load the kernel and put the first processor at its entry; the others wait for a start-up message.

    Raises:
        MachineError: it does not fit into the machine's memory.
        ImageError: it has no segments, or one below 1 MiB.
    """
    kernel, machine = platform.guest, platform.machine
    assert isinstance(kernel, Kernel), "of boot protocol kernel"
    boot, *others = machine.vcpus
    # Says that cpuid may show a local APIC: the built-in guest has no code for one.
    platform.firmware = True
    loader.load(machine, kernel, platform.guest_memory)
    loader.start(boot, kernel.image)
    for vcpu in machine.vcpus:
        # Firmware leaves the APIC enabled, which Linux looks for in the MSR.
        vcpu.set_msr(MSR_APIC_BASE, vcpu.msr(MSR_APIC_BASE) | APIC_ENABLED)
    for vcpu in others:
        vcpu.halt()
    apics.map_registers(machine, platform.board, platform.expect)
    if others:
        # One processor sees its own stores; it takes a second to need watching.
        platform.text = TextWatch(machine, kernel.image)
