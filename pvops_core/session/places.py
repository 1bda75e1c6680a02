"""When a session's guest comes to a place of its code, a named point of its boot or a virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.errors import UsageError
from pvops_core.guest import find_symbol
from pvops_core.guest.places import find_place
from pvops_core.guest.points import POINTS, Passed, Points
from pvops_core.guests import BuiltinGuest
from pvops_core.guests.builtin.points import POINTS as BUILTIN_POINTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.guest import Guest
    from pvops_core.machine import Machine, Vcpu


def when_at(
    machine: Machine, guest: Guest, points: Callable[[], Points], place: str, arrived: Callable[[Vcpu | None], None]
) -> Callable[[], None]:
    """Call ``arrived`` whenever a vCPU comes to a place, or once at a time; gives what ends that.

    Args:
        machine: the machine.
        guest: what runs on it.
        points: gives a kernel's named points.
        place: the place.
        arrived: told who has come there; nobody at a time.

    Raises:
        UsageError: the guest has no such place, or has met the point or the time before.
    """

    def at_point(passed: Passed, vcpu: Vcpu) -> None:
        if passed.name == place:
            arrived(vcpu)

    # The built-in guest has the same points under its own names.
    if isinstance(guest, BuiltinGuest):
        place = BUILTIN_POINTS.get(place, place)
    point = next((point for point in POINTS if point.name == place), None)
    if point is None or isinstance(guest, BuiltinGuest):
        found = find_place(guest.image, place)
        if found.address is None:
            return _when_it_is(machine, found.ns or 0, lambda: arrived(None), place)
        breakpoint_ = machine.break_at(found.address, arrived)
        return lambda: machine.remove(breakpoint_)
    # Told now if the kernel has no such function.
    find_symbol(guest.image, *point.symbols)
    # It would be waited for in vain.
    if place in points().passed:
        raise UsageError(f"the kernel has come by {place} before")
    points().listen(at_point)
    return lambda: points().ignore(at_point)


def _when_it_is(machine: Machine, ns: int, arrived: Callable[[], None], place: str) -> Callable[[], None]:
    """Call ``arrived`` once when so much virtual time has passed; gives what ends that."""
    if ns < machine.clock.ns:
        raise UsageError(f"the guest has come by {place} before: it is at {machine.clock.ns} ns")

    def look() -> int | None:
        if machine.clock.ns < ns:
            return ns
        forget()
        arrived()
        return None

    def forget() -> None:
        if look in machine.loop.watchers:
            machine.unwatch(look)

    machine.watch(look)
    return forget
