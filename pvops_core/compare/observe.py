"""Runs one cell in this process and collects what can be seen of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping

import attrs

from pvops_core.compare.console import ConsoleStream
from pvops_core.compare.events import write_events
from pvops_core.compare.observation import Observation, Outcome
from pvops_core.compare.versions import versions
from pvops_core.compare.wire import Message, Phase, Request
from pvops_core.errors import MachineError, PvopsError
from pvops_core.guests.report import Status
from pvops_core.guests.session import Session
from pvops_core.plugins import Found, Loaded, chain, load_backends

_ENDS = {
    "poweroff": Outcome.POWEROFF,
    "reboot": Outcome.REBOOT,
    "crash": Outcome.CRASH,
    "timeout": Outcome.TIMEOUT,
}


@attrs.frozen
class Ending:
    """How a run ended, and why: in a line and, if there is more to say, in many."""

    outcome: Outcome
    reason: str
    detail: str = ""

    @classmethod
    def of_error(cls, error: BaseException) -> Ending:
        """The end that an exception makes, with the traceback of what nobody raised on purpose."""
        unforeseen = error.__cause__ if isinstance(error, PvopsError) else error
        trace = "".join(traceback.format_exception(unforeseen)) if unforeseen else ""
        return cls(Outcome.ERROR, f"{type(error).__name__}: {error}", trace)


def observe(request: Request, send: Callable[[Message], None]) -> Observation:
    """Run the request's cell to its end.

    Args:
        request: what to run.
        send: told of each phase and of the console's text as it comes.

    Raises:
        PvopsError: the backend does not exist or does not fit, or the machine could not be made. What happens once
            the guest runs is an outcome.
    """
    cell = request.cell
    send(Phase.LOADING)
    loaded = load_backends(plugins=request.plugins)
    send(Phase.BUILDING)
    session = Session.builtin(
        cell.layout,
        cell.backend,
        backends=loaded.backends,
        vcpus=cell.vcpus,
        seed=cell.seed,
        memory=cell.memory,
        cmdline=cell.workload,
        options=cell.options,
        count_instructions=cell.count_instructions,
    )
    with session:
        send(Phase.RUNNING)
        start = time.perf_counter()
        with ConsoleStream(session.platform.console, send):
            ending = _run(session, request.max_ns)
        wall_s = time.perf_counter() - start
        send(Phase.COLLECTING)
        if request.events:
            write_events(session.machine.log.events, request.events)
        used = {found.distribution: found.version for found in _sources(cell.backend, loaded)}
        return _collect(request, session, ending, wall_s, versions(used))


def _sources(backend: str, loaded: Loaded) -> list[Found]:
    return [loaded.sources[each.name] for each in chain(loaded.backends[backend], loaded.backends)]


def _run(session: Session, max_ns: int | None) -> Ending:
    """Run the session, whatever a plugin raises. A guest that ends without a report that it was done has crashed."""
    try:
        stop = session.run(max_ns=max_ns)
        status = session.report().status
    except MachineError as error:
        return Ending(Outcome.CRASH, str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what the plugins' code raises is this run's result
        return Ending.of_error(error)
    outcome = _ENDS.get(stop.reason)
    if outcome is None:
        return Ending(Outcome.CRASH, f"{stop.reason}: {stop.detail}" if stop.detail else stop.reason)
    if outcome.finished and status is not Status.DONE:
        return Ending(Outcome.CRASH, f"{outcome.value} while the guest's report says that it is {status.name.lower()}")
    return Ending(outcome, stop.detail)


def _collect(request: Request, session: Session, ending: Ending, wall_s: float, used: Mapping[str, str]) -> Observation:
    platform, machine, board = session.platform, session.machine, session.switchboard
    report = session.report() if ending.outcome.finished else None
    return Observation(
        request.cell,
        ending.outcome,
        reason=ending.reason,
        detail=ending.detail,
        results={name: str(value) for name, value in report.results.items()} if report else {},
        console=platform.console.decode(errors="replace"),
        op_calls=dict(board.calls),
        sites={op: dict(forms) for op, forms in board.site_forms_by_op().items()},
        traps=dict(platform.traps),
        hypercalls=dict(platform.hypercalls),
        counts=dict(machine.counts),
        guest_counts=dict(report.counts) if report else {},
        page_table_updates=platform.page_table_updates,
        flushes=platform.flushes,
        instructions=machine.instructions,
        virtual_ns=machine.clock.ns,
        wall_s=wall_s,
        switches=len(board.history),
        event_log_sha256=machine.log.sha256,
        text_sha256=session.text_sha256(),
        versions=dict(used),
    )
