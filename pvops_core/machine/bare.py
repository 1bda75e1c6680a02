"""Bare metal: traps go to the guest through its own tables, as hardware does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine.cpu.faults import GuestFault, general_protection
from pvops_core.machine.cpu.instructions.insn import refuse
from pvops_core.machine.cpu.model.cpuid import cpuid
from pvops_core.machine.cpu.model.msrs import (
    MSR_SYSENTER_CS,
    MSR_SYSENTER_EIP,
    MSR_SYSENTER_ESP,
)
from pvops_core.machine.cpu.segmentation.segments import flat
from pvops_core.x86 import EFER_LMA, EFER_SCE, FLAG_IF, FLAG_RF, FLAG_VM, UD

if TYPE_CHECKING:
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.machine import Machine


class BareMetal:
    """The platform of a machine with nothing above it; base of the native backend's platform.

    Ports read as all ones and swallow writes, and nothing ever wakes a halted vCPU: devices are the subclass's.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """Through the guest's IDT."""
        if address is not None:
            vcpu.cr2 = address
        vcpu.deliver(vector, error_code)

    def software_interrupt(self, vcpu: Vcpu, vector: int) -> None:
        """Through the guest's IDT if the gate's DPL allows; else #GP at the instruction."""
        vcpu.deliver_software(vector)

    def syscall(self, vcpu: Vcpu) -> None:
        """As SDM volume 2, SYSCALL: CS and SS from STAR, RIP from LSTAR or CSTAR, flags cleared by FMASK."""
        efer, star, lstar, cstar, mask = vcpu.call_msrs.read()
        # Without LMA syscall is AMD's older one, which no Intel processor has, and the engine is one (SDM volume 2,
        # SYSCALL).
        if not efer & EFER_SCE or not efer & EFER_LMA:
            raise GuestFault("syscall without EFER.SCE", vector=UD)
        flags = vcpu.rflags
        vcpu.set("rcx", vcpu.rip)
        # Hardware keeps the flags in R11 and the return address in RCX; there is no stack yet (SDM volume 2,
        # SYSCALL).
        vcpu.set("r11", flags & ~FLAG_RF)
        selector = star >> 32 & 0xFFFC  # its low bits ask for no level: that is 0
        vcpu.enter(
            0,
            cs=(selector, flat(0, code=True, bits=64)),
            # SS is STAR's selector and 8, whatever the GDT has there: hardware loads fixed descriptors.
            ss=(selector + 8, flat(0, code=False, bits=64)),
            rip=lstar if vcpu.in_64_bit_code else cstar,
            rsp=vcpu.rsp,
            rflags=flags & ~(mask | FLAG_RF),
        )

    def sysenter(self, vcpu: Vcpu) -> None:
        """As SDM volume 2, SYSENTER: CS and SS from SYSENTER_CS, RIP and RSP from their MSRs, interrupts off."""
        # The register's low bits ask for no level: the new one is 0, and SS is the descriptor behind (volume 2,
        # SYSENTER).
        selector = vcpu.msr(MSR_SYSENTER_CS) & 0xFFFC
        if not selector:
            raise general_protection("sysenter with a null SYSENTER_CS")
        bits = 64 if vcpu.long_mode else 32
        vcpu.enter(
            0,
            cs=(selector, flat(0, code=True, bits=bits)),
            ss=(selector + 8, flat(0, code=False, bits=bits)),
            rip=vcpu.msr(MSR_SYSENTER_EIP),
            rsp=vcpu.msr(MSR_SYSENTER_ESP),
            rflags=vcpu.rflags & ~(FLAG_IF | FLAG_RF | FLAG_VM),
        )

    def cpuid(self, vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """The machine's own table."""
        return cpuid(vcpu, leaf, subleaf)

    def io_in(self, vcpu: Vcpu, port: int, size: int) -> int:
        """No device: all ones."""
        del vcpu, port
        return (1 << size * 8) - 1

    def io_out(self, vcpu: Vcpu, port: int, size: int, value: int) -> None:
        """No device: nothing."""

    def privileged(self, vcpu: Vcpu, name: str, *operands: int) -> int | None:
        """Hardware does nothing for the guest: #GP(0)."""
        del vcpu, operands
        raise refuse(name)

    def halted(self, vcpu: Vcpu) -> None:
        """Wait for an interrupt."""
        vcpu.halt()

    def before_entry(self, vcpu: Vcpu) -> None:
        """Deliver the first pending interrupt if the guest allows interrupts now."""
        # One a slice: a handler has to get as far as its iret, or its own masking, before the next.
        if vcpu.pending and vcpu.interrupts_enabled and not vcpu.interrupt_shadow:
            vcpu.deliver_interrupt(vcpu.pending.pop(0))

    def idle(self) -> bool:
        """Wake vCPUs that have an interrupt pending and allow it; without devices nothing else can happen."""
        woken = False
        for vcpu in self.machine.vcpus:
            # An interrupt that IF holds up does not end hlt (SDM volume 2, HLT).
            if vcpu.pending and vcpu.interrupts_enabled:
                vcpu.wake()
                woken = True
        return woken
