"""A kernel that ends by halting: it has no way to switch its machine off, and says "System halted."."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pvops_core.machine import Stop

if TYPE_CHECKING:
    from pvops_core.guest.points import Passed, Points
    from pvops_core.machine import Machine, Vcpu

HALT: Final = "machine_halt"


class Halting:
    """Tells such an end from one that is none.

    From 2.6.27 on ``machine_halt`` stops the processor with interrupts off. Before, on bare metal, it did nothing: the
    process that asked for it is ended, and that being the first one the kernel panics after its last word, in a loop.

    Args:
        machine: what runs.
        points: where the kernel has come by.
        symbols: the kernel's.
    """

    def __init__(self, machine: Machine, points: Points, symbols: Mapping[str, int]) -> None:
        self._machine = machine
        self._points = points
        self._halt = symbols.get(HALT)
        points.listen(self._passed, acts=False)

    def _passed(self, passed: Passed, vcpu: Vcpu) -> None:
        if passed.name == "power-off" and passed.address == self._halt:
            # machine_halt's return is the end: nothing comes after it.
            place = vcpu.word(vcpu.rsp)
            # Not from the handler of a breakpoint.
            self._machine.defer(lambda: self._watch(place))

    def _watch(self, place: int) -> None:
        self._machine.break_at(place, lambda _vcpu: self._machine.stop("halted", f"{HALT} has returned"))

    def judge(self, stop: Stop) -> Stop:
        """The end of a run: nothing that runs is an end like others, once the kernel has been asked for one."""
        if stop.reason == "dead" and "power-off" in self._points.passed:
            return Stop("halted", "the kernel has stopped every vCPU")
        return stop
