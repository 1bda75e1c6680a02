"""The PC around the processors: its devices, wired as in a PC/AT with APICs (MP specification 1.4, 3.6)."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Final, NamedTuple

import attrs

from pvops_native.devices.acpi import AcpiRegisters
from pvops_native.devices.apic import FIXED, INIT, LOWEST, NMI, STARTUP, LocalApic
from pvops_native.devices.bus import DeviceState, PortBus, set_state, state_of
from pvops_native.devices.cmos import Cmos
from pvops_native.devices.ioapic import IoApic
from pvops_native.devices.pic import PicPair
from pvops_native.devices.pit import Pit
from pvops_native.devices.power import Power
from pvops_native.devices.starter import Starter
from pvops_native.devices.uart import Uart

# IRQ lines of the PC/AT.
IRQ_TIMER: Final = 0
IRQ_SERIAL: Final = 4
PIN_TIMER: Final = 2
"""Input of the I/O APIC that the 8254 drives; every other ISA request line drives the input of its own number."""


@attrs.frozen
class Wires:
    """What the devices reach outside of themselves.

    Attributes:
        now: the virtual clock, in nanoseconds.
        send: gets every byte that leaves the serial port.
        stop: told "poweroff", "reboot" or "crash".
        start: told the number of a processor that is to run.
        signal: told delivery mode, vector and the number of the processor, of each message between processors that is
            no interrupt: NMI, INIT and start-up.
    """

    now: Callable[[], int]
    send: Callable[[int], None]
    stop: Callable[[str], None]
    start: Callable[[int], None]
    signal: Callable[[int, int, int], None]


class BoardState(NamedTuple):
    """The devices on the port bus; the I/O APIC and the local ones; whether messages wait to be asked after."""

    ports: tuple[DeviceState, ...]
    others: tuple[DeviceState, ...]
    messages: bool


class Board:
    """Devices of one machine; also the keeper of their state for snapshots.

    Args:
        wires: what they reach.
        epoch: what the CMOS clock shows at virtual time 0, in seconds since 1970 (UTC).
        processors: how many have a local APIC.
    """

    def __init__(self, wires: Wires, epoch: int, processors: int) -> None:
        self._signal = wires.signal
        self._messages = False
        self.pic = PicPair()
        self.ioapic = IoApic(self._send)
        self.pit = Pit(wires.now, self._tick)
        self.uart = Uart(wires.send, partial(self._drive, IRQ_SERIAL))
        self.cmos = Cmos(wires.now, epoch)
        numbers = range(processors)
        # EOI of a level-triggered interrupt goes back to the I/O APIC, which may send it again (SDM volume 3,
        # 11.8.5).
        self.apics = tuple(LocalApic(number, wires.now, self._send_between, self.ioapic.ended) for number in numbers)
        others = (Power(wires.stop), AcpiRegisters(wires.now), Starter(wires.start))
        self.ports = PortBus((self.pic, self.pit, self.uart, self.cmos, *others))

    def _tick(self) -> None:
        # To both controllers: which of them is listened to is the guest's choice by their masks.
        self.pic.pulse(IRQ_TIMER)
        self.ioapic.pulse(PIN_TIMER)

    def _drive(self, irq: int, level: bool) -> None:  # noqa: FBT001  # a wire has one level and nothing else
        self.pic.set_line(irq, level=level)
        self.ioapic.set_line(irq, level=level)

    def take_messages(self) -> bool:
        """Whether a processor has sent a message since this was last asked."""
        # Asked once: a message makes the text of kernels be looked at, which is slow.
        messages, self._messages = self._messages, False
        return messages

    def _send_between(self, mode: int, vector: int, addressed: Callable[[LocalApic], bool]) -> None:
        # Only messages between processors: those of the I/O APIC come from devices, which rewrite no code.
        self._messages = True
        self._send(mode, vector, addressed)

    def _send(self, mode: int, vector: int, addressed: Callable[[LocalApic], bool]) -> None:
        """A message on the APICs' bus; of those that may take one of lowest priority, the first does."""
        targets = [apic for apic in self.apics if addressed(apic)]
        # 11.6.2.4 leaves the choice among processors of equal priority to the model; always the first makes runs
        # repeat.
        for apic in targets[:1] if mode == LOWEST else targets:
            if mode in {FIXED, LOWEST}:
                apic.request(vector)
            elif mode == INIT:
                # The registers first: a start-up that follows finds the APIC as it is after INIT (SDM volume 3,
                # 11.4.7.3).
                apic.reset()
                self._signal(mode, vector, apic.number)
            elif mode in {NMI, STARTUP}:
                self._signal(mode, vector, apic.number)

    def service(self) -> None:
        """Brings every timer up to now."""
        self.pit.service()
        for apic in self.apics:
            apic.service()

    def pending(self, processor: int) -> bool:
        """Whether an interrupt waits for a processor."""
        # LINT0 in ExtINT mode passes the 8259's request on without a vector of its own.
        return self.apics[processor].pending() is not None or (self._hears_pic(processor) and self.pic.interrupting())

    def _hears_pic(self, processor: int) -> bool:
        """The 8259's output goes to the first, through the local APIC."""
        return processor == 0 and self.apics[0].passes_pic

    def acknowledge(self, processor: int) -> int:
        """Takes the interrupt that `pending` spoke of and returns its vector: the local APIC's before the 8259's."""
        vector = self.apics[processor].pending()
        if vector is None:
            return self.pic.acknowledge()
        self.apics[processor].acknowledge(vector)
        return vector

    def next_event(self, listening: Container[int]) -> int | None:
        """The nanosecond of the next timer interrupt that a ``listening`` processor gets; None if there is none."""
        times = [apic.next_event() for apic in self.apics if apic.number in listening]
        # A line that is held back by one in service would come later, and asking for it now would not wake anybody.
        by_pic = 0 in listening and self._hears_pic(0) and self.pic.deliverable(IRQ_TIMER)
        if by_pic or any(self.ioapic.reaches(PIN_TIMER, apic) for apic in self.apics if apic.number in listening):
            times.append(self.pit.next_event())
        return min((time for time in times if time is not None), default=None)

    def next_timer(self, processor: int) -> int | None:
        """The nanosecond at which a timer next asks for a processor's interrupt, whether that is let through or not."""
        apic = self.apics[processor]
        time = apic.next_event()
        by_pic = self._hears_pic(processor) and not self.pic.masked(IRQ_TIMER)
        if not by_pic and not self.ioapic.reaches(PIN_TIMER, apic):
            return time
        tick = self.pit.next_event()
        return time if tick is None else tick if time is None else min(time, tick)

    @property
    def _others(self) -> tuple[attrs.AttrsInstance, ...]:
        """Devices that are on no port."""
        return self.ioapic, *self.apics

    def save(self) -> BoardState:
        """The state of all devices."""
        return BoardState(self.ports.save(), tuple(map(state_of, self._others)), self._messages)

    def load(self, state: BoardState) -> None:
        """Puts a state taken by `save` back."""
        ports, others, self._messages = state
        self.ports.load(ports)
        for device, saved in zip(self._others, others, strict=True):
            set_state(device, saved)
