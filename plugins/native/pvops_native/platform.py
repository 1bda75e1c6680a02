"""Bare metal: a PC, what loads its guest, and how its other processors are started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.cpu.model.features import word
from pvops_core.machine.run.eventkinds import event_kind
from pvops_native import loader
from pvops_native.devices.apic import INIT, NMI, STARTUP
from pvops_native.linux import boot
from pvops_native.pc import Pc, PcSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.guest import Guest
    from pvops_core.machine import Machine, Vcpu
    from pvops_native.textwatch import TextWatch

_START_UP: Final = event_kind(
    "start-up",
    "A vCPU got a start-up message.",
    page="int: number of the page that it begins at",
)

_CPUID_APIC: Final = word({"apic"}, 1, "edx")


class NativePlatform(Pc):
    """A PC with a guest in its memory.

    Attributes:
        starter: what the start port does: given the number of a processor. The built-in guest starts its others by it.
        firmware: there are ACPI tables and local APICs, as a kernel expects.
        text: watches over a kernel's text where there is more than one processor.
        waiting: processors that wait for a start-up message.
    """

    console_name = "ttyS0"
    loaders = {"builtin": loader.load_builtin, "kernel": boot.load_kernel}  # noqa: RUF012 - as ClassVar in the base

    def __init__(self, machine: Machine, guest: Guest, settings: PcSettings | None = None) -> None:
        super().__init__(machine, guest, settings)
        self.starter: Callable[[int], None] = lambda _number: None
        self.firmware = False
        self.text: TextWatch | None = None
        # The first processor is the one that firmware runs on.
        self.waiting = {vcpu.index for vcpu in machine.vcpus[1:]}
        machine.keep(_Processors(self))

    def idle(self) -> bool:
        """Without a timer, somebody who types may still wake the guest."""
        return super().idle() or self.wait_for_typing()

    def before_entry(self, vcpu: Vcpu) -> None:
        """Where a processor has sent an interrupt to another, it may have rewritten that one's text before."""
        # Asked even without a watch, so that old messages do not count when there is one.
        told = self.board.take_messages()
        if self.text is not None:
            self.text.look(told=told)
        super().before_entry(vcpu)

    def cpuid(self, vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """The machine's table, and whether there is a local APIC."""
        eax, ebx, ecx, edx = super().cpuid(vcpu, leaf, subleaf)
        # The built-in guest looks for no APIC, and must not find one.
        return eax, ebx, ecx, edx | _CPUID_APIC if self.firmware and leaf == 1 else edx

    def _start(self, number: int) -> None:
        self.starter(number)

    def _signal(self, mode: int, vector: int, number: int) -> None:
        """NMI; INIT makes a processor wait for a start-up, the first of which lets it run at the page that it names.

        Source: Intel SDM volume 3, 8.4.3 and 9.4.4.
        """
        vcpu = self.machine.vcpus[number]
        if mode == NMI:
            vcpu.raise_unmaskable()
        elif mode == INIT:
            self.waiting.add(number)
            # INIT clears IF and halts until the start-up (SDM volume 3, 8.4.3).
            vcpu.interrupts_enabled = False
            vcpu.halt()
        elif mode == STARTUP and number in self.waiting:
            self.waiting.remove(number)
            self.machine.log.record(_START_UP, vcpu=number, page=vector)
            # Deferred: the sender's engine runs now, and another's registers may not be set meanwhile.
            self.machine.defer(lambda: vcpu.start_real_mode(vector))


@attrs.frozen
class _Processors:
    """Which processors have been started, as a part of machine snapshots."""

    platform: NativePlatform

    def save(self) -> tuple[int, ...]:
        """Those that wait."""
        return tuple(sorted(self.platform.waiting))

    def load(self, state: tuple[int, ...]) -> None:
        """Puts a state taken by `save` back; memory has been, and so has the kernel's text."""
        self.platform.waiting = set(state)
        if self.platform.text is not None:
            self.platform.text.learn()
