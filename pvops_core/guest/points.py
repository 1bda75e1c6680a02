"""Named points of a kernel's boot: places in its own code, found by symbol, and when it came by them.

Nothing is slowed down or changed by them: a point is a breakpoint that is met once or a few times in a boot, and that
only looks unless somebody who listens wants to act there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from pvops_core.machine.run.eventkinds import event_kind

if TYPE_CHECKING:
    from pvops_core.machine import Machine, Vcpu
    from pvops_core.machine.run.breakpoints import Breakpoint

_POINT: Final = event_kind(
    "point",
    "A kernel came to a named point of its boot, each for the first time.",
    name="str: the name of the point",
)

_MOST_POPPED: Final = 0x100


@attrs.frozen
class Point:
    """A place in a kernel's code.

    Attributes:
        name: what reports call it.
        symbols: the functions of which any may be it.
        returned: not a function's first instruction but the one it returns to.
    """

    name: str
    symbols: tuple[str, ...]
    returned: bool = False


POINTS: Final = (
    Point("start_kernel", ("start_kernel",)),
    Point("alternatives", ("alternative_instructions",)),
    Point("paravirt", ("apply_paravirt", "apply_paravirt.part.0"), returned=True),
    Point("patched", ("alternative_instructions",), returned=True),
    Point("free_initmem", ("free_initmem",)),
    Point("init", ("run_init_process",)),
    Point("power-off", ("machine_power_off", "machine_restart", "machine_halt")),
)
"""In the order of a boot: C code begins (init/main.c); the kernel patches itself (arch/x86/kernel/alternative.c), has
patched its paravirt sites, has followed its alternatives; init text is given back; the first process is about to be
executed; the machine is switched off or, where the kernel knows no way to do that, halted."""


@attrs.frozen
class Passed:
    """The first time that a kernel came by a point.

    Attributes:
        name: the point's.
        address: guest-virtual address of the instruction.
        vcpu: index of the vCPU.
        ns: virtual time in nanoseconds.
    """

    name: str
    address: int
    vcpu: int
    ns: int


class PointsState(NamedTuple):
    """The points met: name, address, vCPU, time; where functions will return to, by point: address, stack pointer."""

    passed: tuple[tuple[str, int, int, int], ...]
    returns: dict[str, tuple[tuple[int, int], ...]]


Listener = Callable[[Passed, "Vcpu"], None]


class Points:
    """Notes when a machine's kernel comes by its named points.

    Attributes:
        passed: the points met so far, by name, in the order of meeting.
    """

    def __init__(self, machine: Machine, symbols: Mapping[str, int]) -> None:
        self._machine = machine
        self._listeners: list[Listener] = []
        self._returns: dict[str, set[tuple[int, int]]] = {}
        self._places: list[tuple[int, Callable[[Vcpu], None], Breakpoint]] = []
        self._acts = False
        self.passed: dict[str, Passed] = {}
        for point in POINTS:
            # The first that the kernel has is enough, but several may be there: a compiler's part and the rest.
            for symbol in point.symbols:
                if symbol in symbols:
                    self._watch(point, symbols[symbol])
        machine.keep(self)

    def listen(self, listener: Listener, *, acts: bool = True) -> None:
        """Call ``listener`` at each point, from the handler that noted it, with the vCPU standing there.

        Unless it acts, it only looks: it neither stops the machine there nor changes registers (``Machine.break_at``).

        Raises:
            MachineError: a handler is running, and it is the first one that acts; defer it.
        """
        if acts and not self._acts:
            self._acts = True
            # Breakpoints that act stop the vCPU, which costs a switch of engines: only if somebody wants to act
            # there.
            places, self._places = self._places, []
            for address, action, breakpoint_ in places:
                self._machine.remove(breakpoint_)
                self._break(address, action)
        self._listeners.append(listener)

    def ignore(self, listener: Listener) -> None:
        """End ``listen``."""
        self._listeners.remove(listener)

    def _watch(self, point: Point, address: int) -> None:
        if point.returned:
            self._break(address, lambda vcpu: self._await_return(point, vcpu))
        else:
            self._break(address, lambda vcpu: self._note(point, vcpu))

    def _break(self, address: int, action: Callable[[Vcpu], None]) -> None:
        breakpoint_ = self._machine.break_at(address, action, acts=self._acts)
        self._places.append((address, action, breakpoint_))

    def _await_return(self, point: Point, vcpu: Vcpu) -> None:
        """At the function's first instruction: break where this call of it returns to.

        The breakpoint stays: a snapshot may go back.
        """
        # The stack's top is where the call returns to (SDM volume 2, CALL).
        pointer = vcpu.rsp
        place = vcpu.word(pointer), pointer + self._machine.kind.pointer_size
        # A point that was passed needs no more breakpoints; recursion gives the same place twice.
        if point.name not in self.passed and place not in self._returns.setdefault(point.name, set()):
            self._returns[point.name].add(place)
            # Not from a handler: breakpoints may not be set while the engine runs.
            self._machine.defer(partial(self._expect, point, *place))

    def _expect(self, point: Point, address: int, pointer: int) -> None:
        """Break at an address; the stack pointer tells a return to it from another's coming by there."""

        def came(back: Vcpu) -> None:
            # A 32-bit callee may take its arguments off the stack too.
            if 0 <= back.rsp - pointer < _MOST_POPPED:
                self._note(point, back)

        self._break(address, came)

    def _note(self, point: Point, vcpu: Vcpu) -> None:
        # The first time only: a point is a place in a boot.
        if point.name in self.passed:
            return
        passed = self.passed[point.name] = Passed(point.name, vcpu.rip, vcpu.index, self._machine.clock.ns)
        self._machine.log.record(_POINT, vcpu.index, name=point.name)
        # A copy: listeners may end themselves.
        for listener in tuple(self._listeners):
            listener(passed, vcpu)

    def save(self) -> PointsState:
        """The points met, for a snapshot."""
        passed = tuple((each.name, each.address, each.vcpu, each.ns) for each in self.passed.values())
        return PointsState(passed, {name: tuple(sorted(places)) for name, places in self._returns.items() if places})

    def load(self, state: PointsState) -> None:
        """Go back to a saved state."""
        self.passed = {each[0]: Passed(*each) for each in state.passed}
        # Snapshots do not hold breakpoints, so those that are missing are set again.
        for point in POINTS:
            known = self._returns.setdefault(point.name, set())
            for place in state.returns.get(point.name, ()):
                if place not in known:
                    known.add(place)
                    self._expect(point, *place)
