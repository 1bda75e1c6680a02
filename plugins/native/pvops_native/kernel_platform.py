"""Bare metal for a real kernel: firmware's tables and the boot loader's work, then the kernel is on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import KernelPlatform
from pvops_core.machine.features import word
from pvops_core.machine.msrs import APIC_ENABLED, MSR_APIC_BASE
from pvops_native import apics
from pvops_native.devices.apic import INIT, NMI, STARTUP
from pvops_native.linux import loader
from pvops_native.pc import Pc
from pvops_native.textwatch import TextWatch

if TYPE_CHECKING:
    from pvops_core.boot import Kernel
    from pvops_core.machine import Machine, Vcpu

_CPUID_APIC: Final = word({"apic"}, 1, "edx")


class NativeKernelPlatform(Pc, KernelPlatform):
    """A PC that boots Linux."""

    console_name = "ttyS0"

    def __init__(self, machine: Machine, kernel: Kernel, options: Mapping[str, str]) -> None:
        KernelPlatform.__init__(self, machine, kernel, options)
        self.fit_out(lambda byte: self.emit(bytes((byte,))))
        self._waiting = {vcpu.index for vcpu in machine.vcpus[1:]}
        self._text: TextWatch | None = None

    def save(self) -> object:
        """As a PC's, and which processors wait for a start-up message."""
        return super().save(), frozenset(self._waiting)

    def load(self, state: object) -> None:
        """Puts a state taken by `save` back."""
        if not isinstance(state, tuple):
            raise TypeError("not a state that NativeKernelPlatform.save made")
        pc, waiting = state
        super().load(pc)
        self._waiting = set(waiting)
        if self._text is not None:
            self._text.learn()

    def typed(self, data: bytes) -> None:
        """Over the serial line."""
        self.board.uart.receive(data)

    def idle(self) -> bool:
        """Without a timer, somebody who types may still wake the guest."""
        return super().idle() or self.wait_for_typing()

    def build(self) -> None:
        """Load the kernel and put the first processor at its entry; the others wait for a start-up message."""
        machine = self.machine
        boot, *others = machine.vcpus
        loader.load(machine, self.kernel, int(self.options.get("memory", machine.memory.size)))
        loader.start(boot, self.kernel.image)
        for vcpu in machine.vcpus:
            vcpu.set_msr(MSR_APIC_BASE, vcpu.msr(MSR_APIC_BASE) | APIC_ENABLED)
        for vcpu in others:
            vcpu.halt()
        apics.map_registers(machine, self.board, self._expect)
        if others:
            self._text = TextWatch(machine, self.kernel.image)

    def before_entry(self, vcpu: Vcpu) -> None:
        """Where a processor has sent an interrupt to another, it may have rewritten that one's text before."""
        if self.board.take_messages() and self._text is not None:
            self._text.look()
        super().before_entry(vcpu)

    def cpuid(self, vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """The machine's table, and that there is a local APIC."""
        eax, ebx, ecx, edx = super().cpuid(vcpu, leaf, subleaf)
        return eax, ebx, ecx, edx | _CPUID_APIC if leaf == 1 else edx

    def _signal(self, mode: int, vector: int, number: int) -> None:
        """NMI; INIT makes a processor wait for a start-up, the first of which lets it run at the page that it names.

        Source: Intel SDM volume 3, 8.4.3 and 9.4.4.
        """
        vcpu = self.machine.vcpus[number]
        if mode == NMI:
            vcpu.raise_unmaskable()
        elif mode == INIT:
            self._waiting.add(number)
            vcpu.interrupts_enabled = False
            vcpu.halt()
        elif mode == STARTUP and number in self._waiting:
            self._waiting.remove(number)
            self.machine.log.record("start-up", vcpu=number, page=vector)
            self.machine.defer(lambda: vcpu.start_real_mode(vector))
