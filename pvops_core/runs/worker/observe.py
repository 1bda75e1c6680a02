"""Runs one cell in this process and collects what can be seen of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvops_core.backends import Loaded, chain, load_backends
from pvops_core.backends.blame import own_trace
from pvops_core.backends.keyboard import Keyboard
from pvops_core.backends.loading.loader import load_needed
from pvops_core.errors import HostError, ImageError, MachineError, PvopsError, UsageError, unknown
from pvops_core.guests import builtin_guest, read_kernel
from pvops_core.records import checked
from pvops_core.runs.cell import BUILTIN, Cell
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.wire import Message, Progress, Request, WorkerPhase
from pvops_core.runs.worker.console import ConsoleStream
from pvops_core.runs.worker.counting import counts_of
from pvops_core.runs.worker.debug.piecewise import PiecewiseRun, Runner, runner
from pvops_core.runs.worker.events import write_events
from pvops_core.runs.worker.extras import BuiltinExtras, KernelExtras
from pvops_core.runs.worker.pacer import RealTimePacer
from pvops_core.runs.worker.runend import RunEnd
from pvops_core.runs.worker.versions import versions
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.guest import Guest
    from pvops_core.runs.counts import Counts
    from pvops_core.runs.worker.pluginoutput import PluginOutput


def observe(
    request: Request,
    send: Callable[[Message], None],
    keyboard: Keyboard | None = None,
    output: PluginOutput | None = None,
) -> Observation:
    """Run the request's cell to its end.

    Args:
        request: what to run.
        send: told of each phase and of the console's text as it comes.
        keyboard: what is typed at a real kernel's console.
        output: pass on what plugins say from when they are loaded.

    Raises:
        PvopsError: the backend does not exist or does not fit, the files are no kernel, or the machine could not be
            made. What happens once the guest runs is an outcome.
    """
    cell = request.cell
    send(WorkerPhase.LOADING)
    loaded = load_needed(cell.backend, request.plugins, request.without)
    if cell.backend not in loaded.backends:
        raise _missing(cell.backend, load_backends(request.plugins))
    links = chain(loaded.backends[cell.backend], loaded.backends)
    used = {found.distribution: found.version for found in (loaded.sources[each.name] for each in links)}
    software = versions(used)  # before a hook may do anything to where modules are found
    send(WorkerPhase.BUILDING)
    keyboard = keyboard or Keyboard(request.typed)
    if output is not None:
        output.open()
    extras = BuiltinExtras if cell.guest == BUILTIN else KernelExtras
    with (
        _session(request, links, keyboard) as session,
        extras(session, request, links, send) as seen,
        runner(session, request, send, output) as run,
    ):
        if cell.guest != BUILTIN:
            gc.freeze()  # what was made up to here lasts, and need not be looked at again
        gc.enable()
        if output is not None:
            output.machine = session.machine
        told = len(session.platform.console) if request.load else 0
        silent = _attend(session, keyboard, send) if request.attended else None
        send(WorkerPhase.RUNNING)
        seen.begin()
        with ConsoleStream(session.platform.console, send, told, silent):
            ending = seen.judge(_run(session, request, run)).with_fault(session.last_hook_fault)
        seen.end()
        seen.dump(ending)
        if request.pdb:
            from pvops_core.runs.worker.debug.atend import look  # noqa: PLC0415 - seldom wanted

            look(session, ending, send)
        send(WorkerPhase.COLLECTING)
        if request.save and ending.outcome is Outcome.UNTIL:
            ending = _saved(session, request, ending)
        if request.events:
            write_events(session.machine.log, request.events)
        others = {**seen.found(ending), "versions": software}
        return _collect(request, session, ending, counts_of(session, seen.counted(ending)), others)


def _attend(session: Session, keyboard: Keyboard, send: Callable[[Message], None]) -> Callable[[], None]:
    """Somebody sits at the console: let real time pass, and have what tells him how far a silent guest has come."""
    pacer = RealTimePacer(session.machine, keyboard)
    session.machine.watch(pacer.keep)
    keyboard.sleeper = pacer.sleep

    def tell() -> None:
        points = tuple(session.points.passed)  # a copy at once: the run goes on meanwhile
        send(Progress(session.machine.clock.ns, points[-1] if points else "", session.processors.started))

    return tell


def _missing(backend: str, loaded: Loaded) -> PvopsError:
    """Why a backend is not there: its plugin is broken, or one given by path may have been it, or no such name."""
    named = {error.entry_point.partition(" = ")[0]: error for error in reversed(loaded.errors)}
    by_path = (error for error in loaded.errors if " = " not in error.entry_point)
    return named.get(backend) or next(by_path, None) or unknown("backend", backend, list(loaded.backends))


def _guest(cell: Cell) -> Guest:
    if cell.guest == BUILTIN:
        return builtin_guest(cell.layout, cell.workload)
    kernel = read_kernel(cell.guest, cell.initrd or None, cell.cmdline)
    if not cell.workloads:
        return kernel
    from pvops_core.guests.workload.program import with_workload  # noqa: PLC0415 - seldom wanted

    return with_workload(kernel, cell.workloads)


def _tool_frames(request: Request) -> int:
    if not request.patching.wanted:
        return 0
    from pvops_core.livepatch.payload.pages import FRAMES  # noqa: PLC0415 - seldom wanted

    return FRAMES


def _session(request: Request, links: tuple[Backend, ...], keyboard: Keyboard) -> Session:
    session = _made(request, links, keyboard)
    try:
        if request.load:
            from pvops_core.session.saving import load  # noqa: PLC0415 - seldom wanted

            load(session, links, Path(request.load))
        if request.stop_at:
            session.end_at(request.stop_at)
    except BaseException:
        session.close()
        raise
    return session


def _made(request: Request, links: tuple[Backend, ...], keyboard: Keyboard) -> Session:
    cell = request.cell
    try:
        return Session(
            _guest(cell),
            links,
            vcpus=cell.vcpus,
            seed=cell.seed,
            memory=cell.memory,
            options=cell.options,
            count_instructions=cell.count_instructions,
            until=request.until,
            keyboard=keyboard,
            tool_frames=_tool_frames(request),
            resumed=bool(request.load),
        )
    except HostError:
        raise
    except MachineError as failure:
        raise UsageError(str(failure)) from failure  # nothing has run: something else has to be asked for


def _run(session: Session, request: Request, run: Runner) -> RunEnd:
    """Run the session, whatever a plugin raises."""
    try:
        return RunEnd.of_stop(run(PiecewiseRun(session, request)))
    except MachineError as error:
        return RunEnd.of_crash(f"{error}; {session.where()}", own_trace(error))
    except BaseException as error:  # noqa: BLE001 - what the plugins' code raises is this run's result
        return RunEnd.of_error(error)


def _saved(session: Session, request: Request, ending: RunEnd) -> RunEnd:
    """Write the session to its file; the run has failed if that does."""
    try:
        session.save(request.save, request.stop_at or request.until)
    except PvopsError as error:
        return RunEnd.of_error(error)
    return ending


def _collect(
    request: Request, session: Session, ending: RunEnd, counts: Counts, others: Mapping[str, Any]
) -> Observation:
    platform, machine = session.platform, session.machine
    found = Observation(
        request.cell,
        ending.outcome,
        reason=ending.reason,
        detail=ending.detail,
        console=platform.console.decode(errors="replace"),
        counts=counts,
        vcpus_started=session.processors.started,
        messages=tuple(platform.messages),
        instructions=machine.instructions,
        virtual_ns=machine.clock.ns,
        event_log_sha256=machine.log.sha256,
        text_sha256=_text_sha256(session, request),
        **others,
    )
    return checked(found)  # a plugin's platform may have given anything


def _text_sha256(session: Session, request: Request) -> str:
    try:
        if request.inside.ops is None:
            return session.text_sha256()
        return session.text.sha256(session.text_without_hooks())
    except ImageError:  # an image without section headers does not say where its text is
        return ""
