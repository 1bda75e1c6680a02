"""One call of an op from one state, by the kernel's own function or by a hook, and all that can be seen of it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.run.written import written_pages
from pvops_core.ops import signature
from pvops_core.session.callee import Callee
from pvops_core.session.calls import CallError
from pvops_core.testing.changes import STACK_POINTERS, dead_stack, registers_of
from pvops_core.x86 import ARITHMETIC, PAGE, PF

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pvops_core.backends import HypercallMade
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session
    from pvops_core.testing.proofs.arrivals import Arrival
    from pvops_core.testing.proofs.flushing import Flushing

LIMIT: Final = 20_000_000
"""Virtual time that a call may take, in ns."""
_DEBUG: Final = (6, 7)


Hypercall = tuple[str, tuple[int | str, ...], int, bool, tuple[tuple[int, ...], ...]]
"""One that was made: name, arguments, result, whether it was an entry of a multicall, and what arrays told it."""


@attrs.frozen
class Side:
    """What a call came to.

    Attributes:
        ended: empty if it returned; else how it ended.
        passed: why a hook left it to the kernel's own function; empty if it did not.
        result: as wide as the op's type; 0 where that is void.
        registers: all that the convention keeps, by name; control and debug registers, tables and MSRs among them.
        flags: those that are not arithmetic's.
        pages: contents of the pages of machine memory that were written, by address.
        dead: of pages of the stack, how many bytes at their beginning lie below the pointer of who called.
        hypercalls: in order.
        flushes: what the vCPUs' caches of translations dropped, in order: vCPU, and an address, "space" or "all".
        faults: vector and address of the exceptions on the way.
    """

    ended: str = ""
    passed: str = ""
    result: int = 0
    registers: dict[str, int] = attrs.field(factory=dict)
    flags: int = 0
    pages: dict[int, bytes] = attrs.field(factory=dict)
    dead: dict[int, int] = attrs.field(factory=dict)
    hypercalls: tuple[Hypercall, ...] = ()
    flushes: tuple[tuple[int, int | str], ...] = ()
    faults: tuple[tuple[int, int | None], ...] = ()


class SideCaller:
    """Makes the call that a vCPU is about to make, alone, and undoes it.

    Args:
        session: the vCPU's.
        arrival: the vCPU, at an entry, its arguments in place.
        flushing: notes what it drops.
        registers: other arguments than those that it has, by register.
        meant: the bits of the result that count.
    """

    def __init__(
        self,
        session: Session,
        arrival: Arrival,
        flushing: Flushing,
        registers: Mapping[str, int],
        meant: int = -1,
    ) -> None:
        self._session, self._arrival, self._flushing = session, arrival, flushing
        self._given, self._meant = registers, meant

    def call(self) -> Side:
        """Make it, and see what it came to."""
        machine, platform = self._session.machine, self._session.platform
        made: list[HypercallMade] = []
        with machine.undone() as before:
            platform.observe(made.append)
            self._flushing.begin()
            try:
                side = self._made(made)
            finally:
                platform.ignore(made.append)
            pages = {page: machine.memory.read(page, PAGE) for page in written_pages(machine.memory, before)}
        return attrs.evolve(side, pages=pages)

    def _made(self, made: Sequence[HypercallMade]) -> Side:
        session, cpu, hook = self._session, self._arrival.vcpu, self._arrival.hook
        how = signature(hook.slot, session.machine.kind)
        size, top = session.machine.kind.pointer_size, cpu.rsp
        words = [cpu.word(top + size * (1 + number)) for number in range(how.stack_words)]
        callee = Callee(hook.op, hook.entry, self._given, words, how)
        dead = dict(dead_stack(cpu, top, session.guest.stack_size))
        ended, back = "", cpu
        with ExitStack() as standing:
            call = standing.enter_context(session.calls.standing(cpu, callee))
            try:
                call.make(alone=True, max_ns=LIMIT)
                back = call.cpu
            except CallError as error:
                ended = error.stop.reason
                standing.pop_all()  # it stays where it is
            faults = tuple((fault.vector, fault.address) for fault in call.faults)
            registers = self._registers(back, callee, faults)
            flags = registers.pop("rflags") & ~ARITHMETIC
            return Side(
                ended=ended,
                result=callee.result(back) & self._meant if not ended else 0,
                registers=registers,
                flags=flags,
                hypercalls=tuple(self._plain(each, top) for each in made),
                flushes=self._flushing.seen,
                faults=faults,
                dead=dead,
            )

    def _registers(self, cpu: Vcpu, callee: Callee, faults: Sequence[tuple[int, int | None]]) -> dict[str, int]:
        lost = callee.lost(cpu.machine.kind.bits) | {*STACK_POINTERS.values()}
        if any(vector == PF for vector, _ in faults):
            lost |= {"cr2"}
        found = registers_of(cpu) | {f"dr{number}": cpu.debug.read(number) for number in _DEBUG}
        return {name: value for name, value in found.items() if name not in lost}

    def _plain(self, made: HypercallMade, top: int) -> Hypercall:
        """A hypercall without what depends on the depth of the stack: where a function keeps its variables."""
        base = top & -self._session.guest.stack_size
        arguments = tuple("own memory" if base <= each < top else each for each in made.arguments)
        return made.name, arguments, made.result, made.inner, made.operations
