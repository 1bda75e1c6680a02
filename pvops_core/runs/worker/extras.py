"""What is seen of a run beyond what all show: of the built-in guest its report, of a kernel what was asked for.

What most runs do not ask for is imported when a run does.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from pvops_core.errors import MachineError
from pvops_core.guests import Status
from pvops_core.runs.worker.counting import counts_of
from pvops_core.runs.worker.inspectors import Inspectors
from pvops_core.runs.worker.ordered.switches import OrderedSwitch
from pvops_core.runs.worker.pointsampler import PointSampler
from pvops_core.runs.worker.runend import RunEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pvops_core.backends import Backend
    from pvops_core.livepatch.control.live import LiveBoot
    from pvops_core.runs.wire import Request
    from pvops_core.runs.worker.ordered.dumps import OrderedDump
    from pvops_core.runs.worker.roundsmeter import RoundsMeter
    from pvops_core.session import Session


class RunExtras(ABC):
    """Looks at one run. A context manager; what it looks with is taken away at its end.

    Args:
        session: what will run.
        request: what was asked for.
        backends: its backend, that one's base, its base's base.
        show: is given lines for the user.

    Raises:
        PvopsError: something that was asked for cannot be had of this guest.
    """

    @abstractmethod
    def __init__(
        self, session: Session, request: Request, backends: tuple[Backend, ...], show: Callable[[str], None]
    ) -> None:
        self._session = session
        self._stack = ExitStack()
        self._dumps: tuple[OrderedDump, ...] = ()
        if request.dumps:
            from pvops_core.runs.worker.ordered.dumps import OrderedDump  # noqa: PLC0415

            self._dumps = tuple(OrderedDump(order, session) for order in request.dumps)
        self._orders = [OrderedSwitch(order, session, backends) for order in request.switches]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def begin(self) -> None:
        """The guest is about to run."""

    @abstractmethod
    def end(self) -> None:
        """It has run."""

    @abstractmethod
    def judge(self, ending: RunEnd) -> RunEnd:
        """How the run ended, given how the machine did."""

    @abstractmethod
    def found(self, ending: RunEnd) -> dict[str, Any]:
        """The fields of the observation that it knows of, but for counts."""

    @abstractmethod
    def counted(self, ending: RunEnd) -> dict[str, Mapping[str, int]]:
        """The fields of its counts that it knows of."""

    def dump(self, ending: RunEnd) -> None:
        """Write the dumps that an end like this one asks for."""
        for dump in self._dumps:
            dump.ended(ending.outcome)

    def _ordered(self) -> dict[str, Any]:
        """Those of switches and dumps."""
        history = self._session.switches
        return {
            "switch_log": tuple(history),
            "dumps": tuple(dump.done for dump in self._dumps),
            "switch_orders": tuple(order.done for order in self._orders),
        }


class BuiltinExtras(RunExtras):
    """The built-in guest's own report, and the switchboard that served its calls."""

    def __init__(
        self, session: Session, request: Request, backends: tuple[Backend, ...], show: Callable[[str], None]
    ) -> None:
        super().__init__(session, request, backends, show)
        self._wall_s = 0.0

    def begin(self) -> None:
        """Start the stopwatch."""
        self._start = time.perf_counter()

    def end(self) -> None:
        """Stop it."""
        self._wall_s = time.perf_counter() - self._start

    def judge(self, ending: RunEnd) -> RunEnd:
        """A guest that ends without a report that it was done has crashed."""
        if not ending.outcome.finished:
            return ending
        try:
            status = self._session.report().status
        except MachineError as error:
            return RunEnd.of_crash(str(error))
        if status is Status.DONE:
            return ending
        said = f"{ending.outcome.value} while the guest's report says that it is {status.name.lower()}"
        return RunEnd.of_crash(said)

    def found(self, ending: RunEnd) -> dict[str, Any]:
        """What became of ops and sites, and the report of a guest that came to its end."""
        board = self._session.switchboard
        report = self._session.report() if ending.outcome.finished else None
        return {
            "results": {name: str(value) for name, value in report.results.items()} if report else {},
            "own": board.site_uses(),
            "sites": {op: dict(forms) for op, forms in board.site_forms_by_op().items()},
            **self._ordered(),
            "wall_s": self._wall_s,
        }

    def counted(self, ending: RunEnd) -> dict[str, Mapping[str, int]]:
        """Calls of ops, and what the guest's report counts."""
        board = self._session.switchboard
        guest = self._session.report().counts if ending.outcome.finished else {}
        return {"ops": dict(board.calls), "own": dict(board.own_calls), "guest": dict(guest)}


class KernelExtras(RunExtras):
    """What was asked to be seen of a kernel's boot, and its live patches."""

    def __init__(
        self, session: Session, request: Request, backends: tuple[Backend, ...], show: Callable[[str], None]
    ) -> None:
        super().__init__(session, request, backends, show)
        self._request = request
        self._live: LiveBoot | None = None
        if request.patching.wanted:
            from pvops_core.livepatch.control.live import LiveBoot  # noqa: PLC0415

            self._live = self._stack.enter_context(LiveBoot(session, request.patching, lambda line: show(f"{line}\n")))
        self._inspectors = Inspectors(request.inside, session, backends)
        self._meter: RoundsMeter | None = None
        if request.cell.workloads:
            from pvops_core.runs.worker.roundsmeter import RoundsMeter  # noqa: PLC0415
            from pvops_core.runs.workloads import tasks_of  # noqa: PLC0415

            tasks = tasks_of(request.cell.workloads)
            self._meter = RoundsMeter(session, tasks, lambda: counts_of(session, self._calls()))

    def begin(self) -> None:
        """Look at the points of its boot, from now on."""
        self._sampler = PointSampler(self._session, sites=self._request.examine)

    def end(self) -> None:
        """Stop the stopwatch."""
        self._sampler.stop()

    def judge(self, ending: RunEnd) -> RunEnd:
        """A kernel's end is what the machine says, but for one whose workloads were not carried out, or not well."""
        wrong = self._meter.wrong() if self._meter and ending.outcome.finished else ""
        return RunEnd.of_crash(wrong) if wrong else ending

    def found(self, ending: RunEnd) -> dict[str, Any]:
        """What was asked for."""
        del ending
        return {
            **({"rounds": self._meter.found()} if self._meter else {}),
            **self._sampler.found(),
            "inside": self._inspectors.found(),
            **({"livepatch": self._live.found()} if self._live else {}),
            **self._ordered(),
        }

    def counted(self, ending: RunEnd) -> dict[str, Mapping[str, int]]:
        """Calls of ops."""
        del ending
        return self._calls()

    def _calls(self) -> dict[str, Mapping[str, int]]:
        return {"ops": self._inspectors.op_calls, "own": self._inspectors.own_calls}
