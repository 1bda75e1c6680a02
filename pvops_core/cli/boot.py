"""``pvops boot``: a real kernel once, on one backend, or many small guests."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from pvops_core.backends.choices import parse_choices
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, PluginOption, write_json
from pvops_core.cli.options import dumps, kernels, live, ramdisks, runoptions, saved, typescripts
from pvops_core.cli.options.keyboard import Input, open_input
from pvops_core.cli.options.typescripts import Recorder, Replayed, Typescripts
from pvops_core.cli.options.workerlimits import worker_limits
from pvops_core.cli.output import bootreport, switched
from pvops_core.cli.output.hookoutput import HookOutputOption, heard, terminal
from pvops_core.cli.output.summary import Echo, summary
from pvops_core.cli.terminal.person import Person
from pvops_core.errors import UsageError, printable
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.orders import HookOrder, SwitchOrder
from pvops_core.runs.pool import execute
from pvops_core.runs.wire import Inspection, Request

if TYPE_CHECKING:
    from pvops_core.backends.keyboard import Stroke
    from pvops_core.child.limits import Limits
    from pvops_core.images.findings import Image
    from pvops_core.runs.wire import Progress, WorkerPhase

RECORDS = "PVOPS_ORACLE"


def boot(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="KERNEL...",
            help="Kernel to boot: bzImage or ELF, as distributions ship it. Of several, or of a folder, each that is "
            "one is run.",
        ),
    ] = None,
    *,
    backend: Annotated[str, typer.Option(metavar="NAME", help="Backend whose platform it boots on.")] = "native",
    initrd: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Initial ramdisk; shell for one that gives a shell on the console, as pvops initrd makes it.",
        ),
    ] = "",
    cmdline: Annotated[str, typer.Option(metavar="TEXT", help="Command line of the kernel.")] = "",
    workload: runoptions.WorkloadOption = "",
    cpus: runoptions.CpusOption = 1,
    seed: runoptions.SeedOption = 0,
    memory: runoptions.MemoryOption = kernels.DEFAULT_MEMORY,
    until: Annotated[str, typer.Option(metavar="TEXT", help="End the run as soon as the console has said this.")] = "",
    stop_at: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="End the run where a CPU comes to this function of the kernel's, SYMBOL+OFFSET or address, at a "
            "virtual time such as 20ms, or at a named point: start_kernel, alternatives, paravirt, patched, "
            "free_initmem, init, power-off. Of several functions of one name, name,2 or name@address says which.",
        ),
    ] = "",
    save: saved.SaveOption = None,
    load: saved.LoadOption = None,
    dump_at: dumps.DumpAtOption = None,
    dump_on: dumps.DumpOnOption = None,
    typed: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Type what the file holds at the console; - for standard input to its end. Unless given, what "
            "comes on standard input while the guest runs.",
        ),
    ] = None,
    record: typescripts.RecordOption = None,
    replay: typescripts.ReplayOption = None,
    trace: Annotated[
        str,
        typer.Option(
            metavar="ops",
            help="Count and time (virtually) every op at its call sites, every hypercall and every trap. Costs a few "
            "nanoseconds for each block of code.",
        ),
    ] = "",
    hook: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OP=MODULE:FUNCTION",
            help="Put a Python hook in front of an op of the kernel's; a file.py will do for the module. What it "
            "returns is the op's result in place of the kernel's own, unless it is None. With @BEGIN..END behind it, "
            "either of which may be left out, it stands from one function or named point of the kernel's to another.",
        ),
    ] = None,
    ops: runoptions.OpsOption = "",
    verify_patching: Annotated[
        bool,
        typer.Option(
            "--verify-patching",
            help="Compare every paravirt site that the kernel patches with what `pvops patch` predicts and, where "
            "the variable PVOPS_ORACLE names a folder of records of real boots, with the record of this kernel.",
        ),
    ] = False,
    livepatch: live.ScriptOption = None,
    livepatch_socket: live.SocketOption = None,
    pdb: runoptions.PdbOption = False,
    gdb: runoptions.GdbOption = None,
    wait: runoptions.WaitOption = False,
    max_seconds: runoptions.OfferedSecondsOption = None,
    switch: runoptions.SwitchOption = None,
    settings: runoptions.SetOption = None,
    events: runoptions.EventsOption = None,
    hook_output: HookOutputOption = None,
    json: JsonOption = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of several: write what each guest said of itself as JUnit XML.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of several: runs at once; one for each CPU if not given.")
    ] = None,
    only: Annotated[
        str, typer.Option(metavar="GLOB", help="Of a folder: only images with such a name, for example 'test-pv*'.")
    ] = "",
    plugin: PluginOption = None,
) -> int:
    """Boot a real kernel, or many guests.

    Shows the kernel's console, then what the run was made of: traps, hypercalls, blocks of code, times, hashes.

    Several images, or the images in a folder, run side by side, one result each: SUCCESS, SKIP, ERROR or FAILURE as the
    guest's console says in its line "Test result:", CRASH where it says nothing or the guest does not end. What is to
    be otherwise for one of them stands in NAME.toml beside it: cmdline, initrd, until, cpus, memory, seed, expect (the
    verdict that is no failure), and settings of the platform in a table [set]; NAME~WORD.toml makes a run of its own of
    the same image.

    Exit code: 0 the kernel came to its end, or to the text or place waited for, 2 the files are no kernel or do not fit
    the backend, 5 what it patched is not what was expected or a switch was refused, 6 it crashed or timed out, 4 pvops
    or a plugin failed. 1 or 2 is that of the first command of --livepatch that failed. Of several it is the worst: 5
    for FAILURE and ERROR, 6 for CRASH, 3 if there was no image.
    """
    if trace not in {"", "ops"}:
        raise UsageError(f"--trace takes ops, not {trace!r}")
    saved.check_save(save, stop_at, until, workload)
    if not images and load is None and replay is None:
        raise UsageError("give a KERNEL to boot, --load FILE to go on from a saved boot, or --replay FILE")
    dump_orders = dumps.orders(dump_at, dump_on)
    runoptions.check_folders(events, json, junit, hook_output, save, record, *(order.file for order in dump_orders))
    unknown = {"load": load, "livepatch": livepatch, "livepatch-socket": livepatch_socket, "gdb": gdb}
    Typescripts.check(record, replay, unknown)
    plugins = tuple(plugin or ())
    if plugins and runoptions.broken_paths(runoptions.load(plugins), plugins):
        return ExitCode.FAULT
    kernel = images[0] if images else None
    if images and (len(images) > 1 or os.path.isdir(images[0]) or junit or jobs or only):  # noqa: PTH112 - no name is too long for it
        from pvops_core.cli import several  # noqa: PLC0415 - brings readers of images

        alone = {
            "input": typed,
            "trace": trace,
            "hook": hook,
            "ops": ops,
            "switch": switch,
            "verify-patching": verify_patching,
            "events": events,
            "save": save,
            "load": load,
            "dump-at": dump_at,
            "dump-on": dump_on,
            "record": record,
            "replay": replay,
            "workload": workload,
        }
        several.refuse({**alone, "livepatch": livepatch, "livepatch-socket": livepatch_socket, "gdb": gdb, "pdb": pdb})
        options = parse_choices(settings or ())
        common = several.Common(backend, cmdline, initrd, until, cpus, memory, seed, options, plugins, stop_at)
        most = max_seconds or runoptions.DEFAULT_MAX_SECONDS
        return several.boot_several(
            images, common, most, only=only, jobs=jobs, json=json, junit_file=junit, hook_output=hook_output
        )
    given = Input() if replay else open_input(typed)
    seconds = max_seconds or (None if given.attended or replay else runoptions.DEFAULT_MAX_SECONDS)
    its_own: dict[str, tuple[object, object]] = {
        "backend": (backend, "native"),
        "cmdline": (cmdline, ""),
        "workload": (workload, ""),
        "cpus": (cpus, 1),
        "seed": (seed, 0),
        "memory": (memory, kernels.DEFAULT_MEMORY),
        "set": (settings or [], []),
    }
    replayed: Replayed | None = None
    if replay is not None:
        replayed = Replayed.read(replay, kernel, initrd, its_own | {"input": (typed, None), "ops": (ops, "")})
        cell = replayed.script.cell
    elif load is not None:
        cell = saved.loaded_cell(load, kernel, initrd, its_own)
    else:
        assert kernel is not None
        kind = kernels.kernel_kind(kernel)
        cell = Cell(
            backend,
            "",
            kind,
            guest=str(kernel),
            initrd=ramdisks.ramdisk(initrd, kind),
            console_name=ramdisks.shell_console(initrd, backend, kind, plugins),
            workload=given.sized(cmdline),
            seed=seed,
            vcpus=cpus,
            memory=memory << 20,
            count_instructions=False,
            options=parse_choices(settings or ()),
            workloads=runoptions.workloads(workload),
        )
    scripts = Typescripts(Recorder.of(record, cell.initrd), replayed)
    request = Request(
        cell,
        plugins,
        events=str(events) if events else None,
        max_seconds=seconds,
        until=until,
        stop_at=stop_at,
        typed=given.typed,
        live=given.feeder is not None,
        attended=given.attended,
        inside=Inspection(
            verify_patching,
            os.environ.get(RECORDS, "") if verify_patching else "",
            tuple(HookOrder.parse(text) for text in hook or ()),
            trace=bool(trace),
            ops=runoptions.ops_patterns(ops),
        ),
        switches=tuple(map(SwitchOrder.parse, switch or ())),
        dumps=dump_orders,
        patching=live.patching(livepatch, livepatch_socket),
        load=str(load or ""),
        save=str(save or ""),
        pdb=pdb,
        gdb=runoptions.debug_orders(gdb, wait=wait),
    )
    request = scripts.request(request)
    text = sys.stderr if json == STDOUT else sys.stdout
    with ThreadPoolExecutor(1) as pool:
        image = pool.submit(_image, Path(cell.guest)) if json or record else None  # while the worker starts
        observation = _run(request, given, text, hook_output, worker_limits(seconds, cell.memory), scripts)
    if observation.outcome is Outcome.UNSUPPORTED:
        raise UsageError(observation.reason)
    if image is not None:
        _write(request, observation, image.result(), json, scripts)
    _report(observation, text)
    code = int(scripts.judge(request, observation, text))
    if save is not None and observation.outcome not in {Outcome.UNTIL, Outcome.ERROR}:
        raise UsageError(
            f"{save} is not written: the run ended ({observation.outcome.value}) before it came to its place"
        )
    code = code or (ExitCode.CRASH if given.broken_off else observation.outcome.exit_code)
    code = code or bootreport.exit_code(observation.inside) or switched.exit_code(observation)
    return code or observation.livepatch.exit_code or dumps.exit_code(observation.dumps)


def _run(
    request: Request,
    given: Input,
    text: TextIO,
    hook_output: Path | None,
    limits: Limits,
    scripts: Typescripts,
) -> Observation:
    """Make the run in a child, with the guest's console on ``text`` and the keyboard the guest's."""
    no_prompt = "what you do there could not be replayed (--record)" if scripts.recorder else ""
    no_prompt = "gdb has the session" if request.gdb else no_prompt
    attended = given.feeder if given.attended else None
    person = Person(attended, text, request.cell.vcpus, no_prompt) if attended else None
    watching = [each.told for each in (*((person.screen,) if person else ()), *scripts.recorders)]

    def told(what: WorkerPhase | Progress | Stroke) -> None:
        for each in watching:
            each(what)

    present = person.present() if person else nullcontext()
    with present, heard(hook_output) as hooks, _for_debugger(given) as debugger:
        (observation,) = execute(
            [request],
            listener=person.screen if person else Echo(text),
            limits=limits,
            feeder=given.feeder,
            on_said=hooks.said,
            on_told=told,
            terminal=debugger,
        )
    return observation


def _write(request: Request, observation: Observation, image: Image, json: str | None, scripts: Typescripts) -> None:
    """The files that tell of the run and its kernel: the typescript and the document, where they are wanted."""
    for recorder in scripts.recorders:
        recorder.write(request, observation, image.sha256)
    if json:
        from pvops_core.runs.document import BootResult  # noqa: PLC0415 - brings the catalogue of ops

        write_json("boot", BootResult(image, observation), json)


def _report(observation: Observation, text: TextIO) -> None:
    """What the run was made of, below its console."""
    told = (*summary(observation), *switched.lines(observation), *dumps.lines(observation.dumps))
    advice = observation.outcome is not Outcome.ERROR
    told += (*bootreport.lines(observation.inside, advice=advice), *live.lines(observation.livepatch))
    text.writelines(f"{printable(line)}\n" for line in told)


def _for_debugger(given: Input) -> AbstractContextManager[tuple[int, int] | None]:
    """Standard input, unless the guest reads it and it is no terminal."""
    return nullcontext() if given.feeder is not None and not given.attended else terminal()


def _image(kernel: Path) -> Image:
    """What the document says of the image."""
    from pvops_core.images import load_image  # noqa: PLC0415 - heavy, and without a document not needed
    from pvops_core.images.findings import Image  # noqa: PLC0415
    from pvops_core.records import like  # noqa: PLC0415

    return like(load_image(kernel), Image)
