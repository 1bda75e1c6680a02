"""Runs one cell whose guest is a real kernel, and collects what can be seen of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pvops_core.boot import BootSession, read_kernel
from pvops_core.boot.patching import LiveBoot
from pvops_core.compare.console import ConsoleStream
from pvops_core.compare.ending import Ending
from pvops_core.compare.events import write_events
from pvops_core.compare.examination import Examination
from pvops_core.compare.insight import Insight
from pvops_core.compare.observation import Observation, Outcome
from pvops_core.compare.pace import Pace
from pvops_core.compare.wire import Message, Phase, Request
from pvops_core.errors import ImageError, MachineError, UsageError
from pvops_core.plugins import chain

if TYPE_CHECKING:
    from pvops_core.hookspecs import Backend
    from pvops_core.hookspecs.keyboard import Keyboard


def observe_boot(
    request: Request,
    backends: Mapping[str, Backend],
    used: Mapping[str, str],
    send: Callable[[Message], None],
    keyboard: Keyboard,
) -> Observation:
    """Boot the request's kernel and run it to its end.

    Args:
        request: what to run.
        backends: all backends, by name; the request's is among them.
        used: versions of the software in use.
        send: told of each phase and of the console's text as it comes.
        keyboard: what is typed at the console.

    Raises:
        PvopsError: the files are no kernel, or do not fit the backend or the machine.
    """
    cell = request.cell
    send(Phase.BUILDING)
    kernel = read_kernel(cell.guest, cell.initrd or None, cell.cmdline)
    links = chain(backends[cell.backend], backends)
    try:
        session = BootSession(
            kernel,
            links,
            vcpus=cell.vcpus,
            seed=cell.seed,
            memory=cell.memory,
            options=cell.options,
            count_instructions=cell.count_instructions,
            until=request.until,
            stop_at=request.stop_at,
            keyboard=keyboard,
            livepatch=request.patching.wanted,
        )
    except MachineError as failure:  # it does not fit, and nothing has run: something else has to be asked for
        raise UsageError(str(failure)) from failure
    with session, LiveBoot(session, request.patching, lambda line: send(f"{line}\n")) as live:
        insight = Insight(request.inside, session, links)
        gc.freeze()  # what was made up to here lasts, and need not be looked at again
        if request.attended:
            session.machine.watch(Pace(session.machine, keyboard).keep)
        send(Phase.RUNNING)
        exam = Examination(session, sites=request.examine)
        with ConsoleStream(session.platform.console, send):
            ending = _run(session, request)
        exam.stop()
        send(Phase.COLLECTING)
        if request.events:
            write_events(session.machine.log, request.events)
        others = {
            "op_calls": insight.op_calls,
            "inside": insight.found(),
            "livepatch": live.found(),
            "versions": dict(used),
        }
        return _collect(request, session, ending, {**exam.found(), **others})


def _run(session: BootSession, request: Request) -> Ending:
    """Run the session, whatever a plugin raises."""
    try:
        return Ending.of_stop(session.run(max_ns=request.max_ns, max_seconds=request.seconds_left()))
    except MachineError as error:
        return Ending(Outcome.CRASH, f"{error}; {session.whereabouts()}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what the plugins' code raises is this run's result
        return Ending.of_error(error)


def _collect(request: Request, session: BootSession, ending: Ending, others: Mapping[str, Any]) -> Observation:
    platform, machine = session.platform, session.machine
    return Observation(
        request.cell,
        ending.outcome,
        reason=ending.reason,
        detail=ending.detail,
        console=platform.console.decode(errors="replace"),
        traps=dict(platform.traps),
        hypercalls=dict(platform.hypercalls),
        counts=dict(machine.counts),
        page_table_updates=platform.page_table_updates,
        flushes=platform.flushes,
        messages=tuple(platform.messages),
        instructions=machine.instructions,
        switches=len(session.slots.history) if session.slots else 0,
        virtual_ns=machine.clock.ns,
        event_log_sha256=machine.log.sha256,
        text_sha256=_text_sha256(session),
        **others,
    )


def _text_sha256(session: BootSession) -> str:
    try:
        return session.text_sha256()
    except ImageError:  # an image without section headers does not say where its text is
        return ""
