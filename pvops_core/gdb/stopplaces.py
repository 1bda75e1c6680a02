"""Where a debugger wants the guest to stop: its breakpoints and watchpoints as the machine's own.

Guest text stays as it is. A debugger takes its breakpoints away at each stop and puts them back before it goes on, so
what it says is a wish, which becomes the machine's when the guest next runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from pvops_core.gdb.errors import FULL, PacketError
from pvops_core.machine.engines import WATCHED
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.machine import Breakpoint, Machine, Vcpu
    from pvops_core.machine.run.watchpoints import Watchpoint

MOST: Final = 256
"""Breakpoints at one time: each makes translation slower."""
KINDS: Final = ("swbreak", "hwbreak", "watch", "rwatch", "awatch")
"""By the number in a packet, as stop replies call them (GDB manual, "Packets", Z0 to Z4, and "Stop Reply Packets")."""


class StopPlace(NamedTuple):
    """A breakpoint or watchpoint.

    Attributes:
        kind: its number in a packet, 0 to 4.
        address: guest-virtual.
        length: bytes that are watched; of a breakpoint without meaning.
    """

    kind: int
    address: int
    length: int

    @property
    def watches(self) -> bool:
        """It is a watchpoint."""
        return self.kind >= 2


class Hit(NamedTuple):
    """A vCPU has come to a place."""

    vcpu: int
    place: StopPlace


@attrs.define(eq=False)
class StopPlaces:
    """Those of one debugger.

    Attributes:
        machine: whose.
        hits: what has been met since it was last emptied, in order.
    """

    machine: Machine
    hits: list[Hit] = attrs.field(factory=list)
    _wanted: dict[StopPlace, None] = attrs.field(factory=dict)
    _made: dict[StopPlace, Breakpoint | Watchpoint] = attrs.field(factory=dict)

    def add(self, place: StopPlace) -> None:
        """Stop there, once more or still.

        Raises:
            PacketError: there are too many, or so many bytes cannot be watched.
        """
        alike = [each for each in self._wanted if each.watches == place.watches and each != place]
        most = WATCHED if place.watches else MOST
        if len(alike) >= most:
            raise PacketError(f"no more than {most} at one time", FULL)
        if place.watches and not 1 <= place.length <= PAGE:
            raise PacketError(f"{place.length} bytes cannot be watched: it is 1 to {PAGE}")
        self._wanted[place] = None

    def remove(self, place: StopPlace) -> None:
        """Stop there no more; nothing happens if that is not so."""
        self._wanted.pop(place, None)

    def clear(self) -> None:
        """Stop nowhere."""
        self._wanted.clear()
        self.arm()

    def arm(self, *, stepping: bool = False) -> None:
        """The guest is about to run: have the machine stop at all of these, and nowhere else.

        While it steps breakpoints that are gone stay, silently: the debugger steps over them and puts them back.
        """
        for place in [each for each in self._made if each not in self._wanted]:
            if place.watches or not stepping:
                self.machine.remove(self._made.pop(place))
        for place in [each for each in self._wanted if each not in self._made]:
            self._made[place] = self._make(place)

    def _make(self, place: StopPlace) -> Breakpoint | Watchpoint:
        told = self._teller(place)
        if not place.watches:
            return self.machine.break_at(place.address, told)
        loads, stores = place.kind != 2, place.kind != 3
        return self.machine.watch_at(place.address, place.length, told, loads=loads, stores=stores)

    def _teller(self, place: StopPlace) -> Callable[[Vcpu], None]:
        def told(vcpu: Vcpu) -> None:
            if place in self._wanted:
                self.hits.append(Hit(vcpu.index, place))
                self.machine.pause()

        return told
