"""The PC: processors and one board of devices. The guest's traps go to the guest, its ports to the devices."""

from __future__ import annotations

import calendar
from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from pvops_core.backends import Platform, Settings, clock_start, cpu_model
from pvops_core.machine import BareMetal
from pvops_core.machine.cpu.model.cpumodel import cpu_features, cpu_identity
from pvops_core.machine.run.eventkinds import event_kind
from pvops_native.board import Board, BoardState, Wires

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.guest import Guest
    from pvops_core.machine import Machine, Vcpu
    from pvops_native.devices.apic import LocalApic

_INTERRUPT: Final = event_kind(
    "interrupt",
    "The interrupt controller delivered a vector.",
    vector="int: 32 to 255",
)

PORT_NS: Final = 1000
"""A transfer on an ISA bus takes about a microsecond."""
LATEST: Final = calendar.timegm((9999, 12, 31, 23, 59, 59))
"""The CMOS clock has four digits for the year."""
EXCEPTIONS: Final = (
    *("#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS", "#GP", "#PF"),
    *("#15", "#MF", "#AC", "#MC", "#XM"),
)
"""Names of the exceptions by vector (Intel SDM volume 3, table 6-1)."""


@attrs.frozen(kw_only=True)
class PcSettings(Settings):
    """What may be chosen of a PC."""

    rtc: int = clock_start(most=LATEST)
    cpu: str = cpu_model()


class PcState(NamedTuple):
    """A PC in a snapshot: its devices, what they have printed, and what has been counted."""

    board: BoardState
    console: bytes
    traps: dict[str, int]
    hypercalls: dict[str, int]
    flushes: int


class Pc(BareMetal, Platform):
    """A PC's devices, and its processors' traps and interrupts."""

    settings_class = PcSettings
    settings: PcSettings

    def __init__(self, machine: Machine, guest: Guest, settings: PcSettings | None = None) -> None:
        Platform.__init__(self, machine, guest, settings)
        # Before anything runs: features are looked at by instructions that are emulated.
        machine.features = cpu_features(self.settings.cpu)
        machine.identity = cpu_identity(self.settings.cpu)
        self.fit_out(self._send)

    def fit_out(self, send: Callable[[int], None]) -> None:
        """Put the devices in; ``send`` gets what leaves the serial port. A hypervisor under a PC adds its own."""
        machine = self.machine
        clock = machine.clock
        wires = Wires(lambda: clock.ns, send, self._stop, self._start, self._signal)
        self.board = Board(wires, self.settings.rtc, len(machine.vcpus))
        # Apart from the platform's own, which a hypervisor on this PC fills.
        machine.keep(_Counted(self))
        machine.keep(self)

    def _send(self, byte: int) -> None:
        """A byte leaves the serial port."""
        self.emit(bytes((byte,)))

    def typed(self, data: bytes) -> None:
        """Over the serial line."""
        self.board.uart.receive(data)

    @property
    def apics(self) -> tuple[LocalApic, ...]:
        """The local APICs, by processor."""
        return self.board.apics

    def save(self) -> Any:  # noqa: ANN401 - whatever a class below has
        """State of a class below, for a snapshot; the PC's own is part of it without."""

    def load(self, state: Any) -> None:  # noqa: ANN401
        """Go back to what ``save`` gave."""

    def _stop(self, reason: str) -> None:
        self.machine.stop(reason, "asked for by the guest")

    def _start(self, number: int) -> None:
        """The guest asks for another processor to be started."""

    def _signal(self, mode: int, vector: int, number: int) -> None:
        """A processor is sent an NMI, an INIT or a start-up."""

    # Traps: counted, then as the hardware does it

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """Counted by name, then through the guest's IDT."""
        self.traps[EXCEPTIONS[vector] if vector < len(EXCEPTIONS) else f"#{vector}"] += 1
        super().exception(vcpu, vector, error_code, address)

    def software_interrupt(self, vcpu: Vcpu, vector: int) -> None:
        """Counted, then through the guest's IDT."""
        self.traps[f"int {vector:#x}"] += 1
        super().software_interrupt(vcpu, vector)

    def syscall(self, vcpu: Vcpu) -> None:
        """Counted, then to IA32_LSTAR."""
        self.traps["syscall"] += 1
        super().syscall(vcpu)

    def sysenter(self, vcpu: Vcpu) -> None:
        """Counted, then to IA32_SYSENTER_EIP."""
        self.traps["sysenter"] += 1
        super().sysenter(vcpu)

    # Ports

    def io_in(self, vcpu: Vcpu, port: int, size: int) -> int:  # noqa: ARG002  # every processor sees the same bus
        """Read from the bus."""
        self.machine.clock.advance(PORT_NS)
        return self.board.ports.read(port, size)

    def io_out(self, vcpu: Vcpu, port: int, size: int, value: int) -> None:
        """Write to the bus."""
        self.machine.clock.advance(PORT_NS)
        self.board.ports.write(port, size, value)
        # A write may have armed a timer or let an interrupt through.
        self.expect(vcpu)

    # Interrupts

    def before_entry(self, vcpu: Vcpu) -> None:
        """Bring the timers up to date, wake who has an interrupt, and deliver this processor's."""
        # Timers first: what they raise may be this processor's interrupt.
        self.board.service()
        self._wake()
        # The shadow of sti and mov ss holds interrupts back for one instruction (SDM volume 3, 6.8.3).
        if self._accepts(vcpu) and not vcpu.interrupt_shadow:
            # Acknowledged only when it is delivered, for the chips take that for a promise.
            vector = self.board.acknowledge(vcpu.index)
            self.machine.log.record(_INTERRUPT, vcpu=vcpu.index, vector=vector)
            vcpu.deliver_interrupt(vector)
        self.expect(vcpu)

    def expect(self, vcpu: Vcpu) -> None:
        """Tell the machine when the next interrupt for a processor comes, as far as it can be known now."""
        index = vcpu.index
        # 0: at once.
        when = 0 if self.board.pending(index) else self.board.next_timer(index)
        if when is not None:
            vcpu.expect(when)

    def _accepts(self, vcpu: Vcpu) -> bool:
        """An interrupt waits for the processor and it takes interrupts."""
        return self.board.pending(vcpu.index) and vcpu.interrupts_enabled

    def _wake(self) -> bool:
        """Wake halted processors that have an interrupt to take; whether there were any."""
        # A processor that does not accept it stays halted: hlt with interrupts off waits for an NMI.
        sleepers = [vcpu for vcpu in self.machine.vcpus if vcpu.halted and self._accepts(vcpu)]
        for vcpu in sleepers:
            vcpu.wake()
        return bool(sleepers)

    def idle(self) -> bool:
        """Move the clock to the next timer interrupt that a halted processor will take."""
        self.board.service()
        if self._wake():
            return True
        # A timer for processors that sleep with interrupts off would be waited for in vain.
        listening = {vcpu.index for vcpu in self.machine.vcpus if vcpu.interrupts_enabled}
        event = self.board.next_event(listening)
        if event is None:
            return False
        self.sleep_until(event)
        # The sleep may have ended earlier than the event.
        self.board.service()
        self._wake()
        return True


def __getattr__(name: str) -> object:
    return import_module("pvops_core.api1.names").moved(__name__, name)


@attrs.frozen
class _Counted:
    """A PC's part in snapshots, beside the platform, whose own ``save`` and ``load`` are for classes below to have."""

    pc: Pc

    def save(self) -> PcState:
        """The devices, the console and the counts."""
        pc = self.pc
        return PcState(pc.board.save(), bytes(pc.console), dict(pc.traps), dict(pc.hypercalls), pc.flushes)

    def load(self, state: PcState) -> None:
        """Puts a state taken by `save` back."""
        pc = self.pc
        board, console, traps, hypercalls, pc.flushes = state
        pc.board.load(board)
        # In place: readers hold the bytearray.
        pc.console[:] = console
        pc.traps, pc.hypercalls = Counter(traps), Counter(hypercalls)
