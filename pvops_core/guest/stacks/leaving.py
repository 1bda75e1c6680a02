"""Brings everybody out of text that is to change, or refuses.

Who is about to leave is stepped out: calls that stand at gates are served first. Who sleeps inside is woken, as ``hlt``
may end at any time. The others go on through the machine's own run loop, for a bounded virtual time: one after the
other, so that nobody who is outside comes in again, and where that does not help together with all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.errors import OccupiedError

if TYPE_CHECKING:
    from pvops_core.guest.stacks.returns import Occupant, Returns
    from pvops_core.guest.stacks.spans import Spans
    from pvops_core.machine import Machine, Vcpu

PATIENCE_NS: Final = 1_000_000
"""Virtual time that those who are inside have to come out."""
SHORTEST_NS: Final = 25
LOOKS: Final = 11
"""They are looked at after that time, and after twice as long each time; so many times, then from the shortest on anew:
who comes in again soon is met outside only by the short ones, and who leaves late by the long ones."""


def bring_out(machine: Machine, returns: Returns, spans: Spans, *, patience_ns: int = PATIENCE_NS) -> None:
    """Bring every vCPU and task out of the inside of spans. Between slices, or outside of a run.

    Raises:
        OccupiedError: somebody does not come out in time, or nobody may run.
        BaseException: what a handler raised meanwhile.
    """
    if not len(spans):
        return
    # Calls that stand at gates are inside their sites, and are over at once.
    machine.quiesce(spans.ranges)
    inside = returns.inside(spans)
    if not inside:
        return
    start, looks = machine.clock.ns, 0
    while inside:
        now = machine.clock.ns
        if now - start >= patience_ns:
            raise occupied(inside, returns, f"still after {(now - start) / 1000:.0f} us")
        step = min(SHORTEST_NS << looks % LOOKS, start + patience_ns - now)
        # Whoever is first alone, then all: one may wait for another's lock.
        alone = looks // LOOKS % 2 == 0
        if not _go_on(machine, inside, now + step, alone=alone) and not (
            alone and _go_on(machine, inside, now + step, alone=False)  # the first may be one that cannot run
        ):
            raise occupied(inside, returns, "and nobody may run, or the guest has come to its end")
        # Each look begins with everybody between two instructions.
        machine.quiesce(spans.ranges)
        inside = returns.inside(spans)
        looks += 1


def _go_on(machine: Machine, inside: Sequence[Occupant], until: int, *, alone: bool) -> bool:
    """Let the first who is inside run for a turn, or everybody unless ``alone``; whether anybody could."""
    first = next((each.vcpu for each in inside if each.vcpu is not None), None)
    concerned = {first} if alone else {each.vcpu for each in inside}
    held: list[Vcpu] = []
    for vcpu in machine.vcpus:
        if vcpu.index in concerned:
            # One that is halted comes out only if it is woken.
            machine.rouse(vcpu)
        elif alone and first is not None and not vcpu.held:
            vcpu.hold()
            held.append(vcpu)
    try:
        return machine.go_on(until)
    finally:
        for vcpu in held:
            vcpu.release()


def occupied(inside: Sequence[Occupant], returns: Returns, why: str) -> OccupiedError:
    """The error that names everybody who is inside, the first in its fields."""
    first = inside[0]
    told = "; ".join(each.told(returns.where(each.place)) for each in inside)
    return OccupiedError(
        f"text that is to change is in use: {told}, {why}; nothing is changed",
        address=first.place,
        vcpu=first.vcpu,
        task=first.task,
        place=returns.where(first.place),
    )
