"""The PC around the processors: its devices, wired to each other and to the virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Final

import attrs

from pvops_native.devices.acpi import AcpiRegisters
from pvops_native.devices.apic import LocalApic
from pvops_native.devices.bus import PortBus, set_state, state_of
from pvops_native.devices.cmos import Cmos
from pvops_native.devices.pic import PicPair
from pvops_native.devices.pit import Pit
from pvops_native.devices.power import Power
from pvops_native.devices.starter import Starter
from pvops_native.devices.uart import Uart

IRQ_TIMER: Final = 0
IRQ_SERIAL: Final = 4


@attrs.frozen
class Wires:
    """What the devices reach outside of themselves.

    Attributes:
        now: the virtual clock, in nanoseconds.
        send: gets every byte that leaves the serial port.
        stop: told "poweroff", "reboot" or "crash".
        start: told the number of a processor that is to run.
    """

    now: Callable[[], int]
    send: Callable[[int], None]
    stop: Callable[[str], None]
    start: Callable[[int], None]


class Board:
    """Devices of one machine; also the keeper of their state for snapshots.

    Args:
        wires: what they reach.
        epoch: what the CMOS clock shows at virtual time 0, in seconds since 1970 (UTC).
        processors: how many have a local APIC.
    """

    def __init__(self, wires: Wires, epoch: int, processors: int) -> None:
        self.pic = PicPair()
        self.pit = Pit(wires.now, partial(self.pic.pulse, IRQ_TIMER))
        self.uart = Uart(wires.send, lambda level: self.pic.set_line(IRQ_SERIAL, level=level))
        self.cmos = Cmos(wires.now, epoch)
        self.apics = tuple(LocalApic(number, wires.now, self._send) for number in range(processors))
        others = (Power(wires.stop), AcpiRegisters(wires.now), Starter(wires.start))
        self.ports = PortBus((self.pic, self.pit, self.uart, self.cmos, *others))

    def _send(self, vector: int, addressed: Callable[[LocalApic], bool]) -> None:
        for apic in self.apics:
            if addressed(apic):
                apic.request(vector)

    def service(self) -> None:
        """Brings every timer up to now."""
        self.pit.service()
        for apic in self.apics:
            apic.service()

    def pending(self, processor: int) -> bool:
        """Whether an interrupt waits for a processor; the 8259's output goes to the first."""
        return self.apics[processor].pending() is not None or (processor == 0 and self.pic.interrupting())

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
        if 0 in listening and self.pic.deliverable(IRQ_TIMER):
            times.append(self.pit.next_event())
        return min((time for time in times if time is not None), default=None)

    def next_timer(self, processor: int) -> int | None:
        """The nanosecond at which a timer next asks for a processor's interrupt, whether that is let through or not."""
        time = self.apics[processor].next_event()
        if processor or self.pic.masked(IRQ_TIMER):
            return time
        tick = self.pit.next_event()
        return time if tick is None else tick if time is None else min(time, tick)

    def save(self) -> object:
        """The state of all devices."""
        return self.ports.save(), [state_of(apic) for apic in self.apics]

    def load(self, state: object) -> None:
        """Puts a state taken by `save` back."""
        if not isinstance(state, tuple):
            raise TypeError("not a state that Board.save made")
        ports, apics = state
        self.ports.load(ports)
        for apic, saved in zip(self.apics, apics, strict=True):
            set_state(apic, saved)
