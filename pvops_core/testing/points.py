"""Places in the built-in guest's boot at which a test may begin, and how to get there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.errors import MachineError, UsageError
from pvops_core.guests.builtin.points import POINTS
from pvops_core.machine import Reschedule

if TYPE_CHECKING:
    from pvops_core.machine import Stop, Vcpu
    from pvops_core.session import Session

ENTRY: Final = "entry"
"""Before the first instruction."""
OP: Final = "op:"
LIMIT: Final = 400_000_000


def run_to(session: Session, point: str) -> None:
    """Run a guest that has not run yet until its first vCPU comes to a point.

    Args:
        session: the guest.
        point: ``entry``, a name in ``POINTS``, ``op:`` and the name of an op, whose first call has been made
            but not served yet, or a function of the guest's.

    Raises:
        UsageError: there is no such point.
        MachineError: the guest ended, or 0.4 s of virtual time passed, before it came there.
    """
    if point == ENTRY:
        return
    if point.startswith(OP):
        _run_to_op(session, point.removeprefix(OP))
        return
    symbol = POINTS.get(point, point)
    if symbol not in session.guest.symbols:
        raise UsageError(f"no point {point!r}; there are {ENTRY}, {', '.join(POINTS)}, and the guest's functions")
    stop = session.machine.run(max_ns=LIMIT, until=session.guest.symbols[symbol])
    if stop.reason != "landed":
        raise _missed(session, symbol, stop)


def _run_to_op(session: Session, op: str) -> None:
    """Put something in the op's place that stops the machine and asks to be called again."""
    board, machine = session.switchboard, session.machine
    history, served = tuple(board.history), board.implementation(op)

    def wait(cpu: Vcpu) -> None:
        machine.stop(OP, f"vcpu {cpu.index}")
        raise Reschedule

    board.switch(op, wait, by="testing")
    stop = session.run(max_ns=LIMIT)
    if stop.reason != OP:
        raise _missed(session, op, stop)
    slot = session.layout.by_op(op)
    cpu = machine.vcpus[0]
    board.switch(op, served, by="testing")
    board.history[:] = history
    cpu.rip = cpu.word(session.guest.symbols[slot.symbol] + slot.offset)


def _missed(session: Session, what: str, stop: Stop) -> MachineError:
    said = session.platform.console.decode(errors="replace").strip().rpartition("\n")[2]
    return MachineError(f"the guest did not come to {what}: {stop.reason} {stop.detail} ({said})")
