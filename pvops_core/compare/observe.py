"""Runs one cell in this process and collects what can be seen of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pvops_core.compare.boots import observe_boot
from pvops_core.compare.cell import BUILTIN
from pvops_core.compare.console import ConsoleStream
from pvops_core.compare.ending import Ending
from pvops_core.compare.events import write_events
from pvops_core.compare.observation import Observation, Outcome
from pvops_core.compare.versions import versions
from pvops_core.compare.wire import Message, Phase, Request
from pvops_core.errors import MachineError, PvopsError, unknown
from pvops_core.guests.report import Status
from pvops_core.guests.session import Session
from pvops_core.hookspecs.keyboard import Keyboard
from pvops_core.plugins import Found, Loaded, chain, load_backends


def observe(request: Request, send: Callable[[Message], None], keyboard: Keyboard | None = None) -> Observation:
    """Run the request's cell to its end.

    Args:
        request: what to run.
        send: told of each phase and of the console's text as it comes.
        keyboard: what is typed at a real kernel's console.

    Raises:
        PvopsError: the backend does not exist or does not fit, or the machine could not be made. What happens once
            the guest runs is an outcome.
    """
    cell = request.cell
    send(Phase.LOADING)
    loaded = load_backends(plugins=request.plugins, watched=True)
    if cell.backend not in loaded.backends:
        raise _missing(cell.backend, loaded)
    used = {found.distribution: found.version for found in _sources(cell.backend, loaded)}
    if cell.guest != BUILTIN:
        return observe_boot(request, loaded.backends, versions(used), send, keyboard or Keyboard(request.typed))
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
            ending = _run(session, request)
        wall_s = time.perf_counter() - start
        send(Phase.COLLECTING)
        if request.events:
            write_events(session.machine.log, request.events)
        return _collect(request, session, ending, wall_s, versions(used))


def _missing(backend: str, loaded: Loaded) -> PvopsError:
    """Why a backend is not there: its plugin is broken, or one given by path may have been it, or no such name."""
    named = {error.entry_point.partition(" = ")[0]: error for error in reversed(loaded.errors)}
    by_path = (error for error in loaded.errors if " = " not in error.entry_point)
    return named.get(backend) or next(by_path, None) or unknown("backend", backend, list(loaded.backends))


def _sources(backend: str, loaded: Loaded) -> list[Found]:
    return [loaded.sources[each.name] for each in chain(loaded.backends[backend], loaded.backends)]


def _run(session: Session, request: Request) -> Ending:
    """Run the session, whatever a plugin raises. A guest that ends without a report that it was done has crashed."""
    try:
        stop = session.run(max_ns=request.max_ns, max_seconds=request.seconds_left())
        status = session.report().status
    except MachineError as error:
        return Ending(Outcome.CRASH, str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what the plugins' code raises is this run's result
        return Ending.of_error(error)
    ending = Ending.of_stop(stop)
    if ending.outcome.finished and status is not Status.DONE:
        said = f"{ending.outcome.value} while the guest's report says that it is {status.name.lower()}"
        return Ending(Outcome.CRASH, said)
    return ending


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
        messages=tuple(platform.messages),
        instructions=machine.instructions,
        virtual_ns=machine.clock.ns,
        wall_s=wall_s,
        switches=sum(not switch.refused for switch in board.history),
        event_log_sha256=machine.log.sha256,
        text_sha256=session.text_sha256(),
        versions=dict(used),
    )
