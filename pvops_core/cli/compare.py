"""``pvops compare``: one guest on several backends; are the results equal, and what does each cost?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from pvops_core.backends.choices import choices_for, parse_choices
from pvops_core.cli.common import STDOUT, JsonOption, PluginOption, require, write_file, write_json
from pvops_core.cli.options import kernels, runoptions
from pvops_core.cli.options.axes import NumberedAxes
from pvops_core.cli.options.workerlimits import worker_limits
from pvops_core.cli.output.hookoutput import HookOutputOption, heard
from pvops_core.cli.study import StudyWishes, carry_out
from pvops_core.compare.bootdiff import named_ops
from pvops_core.compare.comparison import Choice, Comparison, grouped, unsupported
from pvops_core.compare.document import compare_result
from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from pvops_core.runs.again import again
from pvops_core.runs.phases import PHASES
from pvops_core.runs.plan import (
    Files,
    RunPlan,
    Workload,
    bases_first,
    choose,
    machine_kinds,
    plan_builtin,
    plan_kernel,
)
from pvops_core.runs.pool import execute
from pvops_core.runs.progress import ProgressListener
from pvops_core.runs.wire import Inspection, Request
from pvops_core.study.job import Job
from pvops_core.study.spec import StudySpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pvops_core.backends import Loaded
    from pvops_core.child.limits import Limits

_PIPED_WIDTH = 160
_HINT = "More: --html FILE for a page with plots, every op and the consoles; --json FILE for every number."


def compare(
    *,
    kernel: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Kernel to boot on each backend, in place of the built-in guest; may be repeated."
        ),
    ] = None,
    initrd: Annotated[Path | None, typer.Option(metavar="FILE", help="Initial ramdisk of the kernel.")] = None,
    backends: Annotated[
        str | None, typer.Option(metavar="A,B", help="Backends to compare; all that are installed if not given.")
    ] = None,
    layouts: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Layouts of the table of ops (one guest each), such as 6.1-64; all if not given."
        ),
    ] = "",
    kinds: Annotated[
        str, typer.Option(metavar="A,B", help="Only layouts of these machine kinds: i386, pae, x86_64.")
    ] = "",
    cmdline: Annotated[str, typer.Option(metavar="TEXT", help="Command line of the guest.")] = "",
    workload: runoptions.WorkloadOption = "",
    cpus: Annotated[
        str,
        typer.Option(metavar="N[,N...]", help="Virtual CPUs; several numbers, or ranges such as 1..4, make a study."),
    ] = "1",
    seed: Annotated[
        str,
        typer.Option(
            "--seed",
            "--seeds",
            metavar="N[,N...]",
            help="Seed of the runs: the same seed gives the same run. Several, or a range such as 0..9, make a study.",
        ),
    ] = "0",
    memory: Annotated[
        str,
        typer.Option(
            metavar="MIB[,MIB...]",
            help="Guest memory in MiB; if not given 16, and 256 for a kernel. Several numbers make a study.",
        ),
    ] = "",
    phases: Annotated[
        str, typer.Option(metavar="A,B", help=f"Phases of the kernel's boot to tell of: {', '.join(PHASES)}.")
    ] = "",
    ops: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Ops whose sites in the kernel to tell of, and whose calls to count, which takes time; patterns such "
            "as 'irq.*' too.",
        ),
    ] = "",
    python_ops: runoptions.PythonOpsOption = "",
    instructions: Annotated[
        bool, typer.Option("--instructions", help="Count the kernel's instructions too, which takes long.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Runs at once; one for each CPU if not given.")
    ] = None,
    max_seconds: runoptions.MaxSecondsOption = runoptions.DEFAULT_MAX_SECONDS,
    settings: runoptions.SetOption = None,
    hook_output: HookOutputOption = None,
    json: JsonOption = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the table, plots, every op and the consoles.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table as a picture.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where a study's results are kept.")
    ] = Path("compare.results"),
    plugin: PluginOption = None,
) -> int:
    """Compare backends on one guest.

    Runs the built-in guest on every backend. Are the results equal, and what does each backend cost?

    With --kernel it boots that kernel on every backend, and tells what the boots took in each of their phases, which
    paravirt sites became something else, and which lines of the consoles differ. The name of each platform's console
    is added to the command line unless that names one.

    A setting goes to those backends that have it.

    Several kernels, CPUs, seeds or memories make a study of it: each run is kept in a folder of results, what is there
    is not run again, and the answer has medians over the seeds; see `pvops study`.

    Exit code: 0 equal, 5 results differ, 6 a guest crashed or timed out, 4 pvops or a plugin failed, 3 nothing ran.
    """
    if html:
        require("report", "jinja2", "matplotlib")
    runoptions.check_folders(html, svg, json, hook_output)
    plugins, kernels_given, axes = tuple(plugin or ()), tuple(kernel or ()), NumberedAxes.of(cpus, seed, memory)
    if axes.several or len(kernels_given) > 1:
        alone = {"phases": phases, "ops": ops, "svg": svg, "hook-output": hook_output}
        _refuse("one run of each backend", alone)
        if not kernels_given:
            _refuse("--kernel", {"python-ops": python_ops, "workload": workload})
        spec = StudySpec(
            name="compare",
            plugins=plugins,
            kernels=tuple(map(str, kernels_given)),
            initrd=str(initrd or ""),
            backends=_names_of(backends),
            layouts=tuple(runoptions.names(layouts)),
            kinds=tuple(runoptions.names(kinds)),
            cpus=axes.cpus,
            memory=axes.memory,
            seeds=axes.seeds,
            cmdlines=cmdline,
            workloads=workload,
            ops=python_ops,
            settings=" ".join(settings or ()),
            measure=("instructions",) if instructions else (),
            max_seconds=max_seconds,
        )
        return carry_out(Job.of_spec(spec, Path.cwd()), output, StudyWishes(jobs=jobs, json=json, html=html))
    image = kernels_given[0] if kernels_given else None
    loaded = runoptions.load(plugins)
    wanted = _Wanted(loaded, _names_of(backends), plugins, max_seconds)
    choices = choices_for(wanted.chosen(), parse_choices(settings or ()), loaded.backends)
    choice = Choice(tuple(choose("phase", runoptions.names(phases), list(PHASES))), _ops(runoptions.names(ops), image))
    if image is None:
        _refuse(
            "--kernel",
            {
                "initrd": initrd,
                "phases": phases,
                "ops": ops,
                "instructions": instructions,
                "python-ops": python_ops,
                "workload": workload,
            },
        )
        task = Workload(
            cmdline, axes.seeds[0], axes.cpus[0], (*axes.memory, runoptions.DEFAULT_MEMORY)[0] << 20, choices
        )
        job = _of_builtin(wanted, task, runoptions.names(layouts), runoptions.names(kinds))
    else:
        _refuse("the built-in guest", {"layouts": layouts, "kinds": kinds})
        mebibytes = (*axes.memory, kernels.DEFAULT_MEMORY)[0]
        names = runoptions.workloads(workload)
        task = Workload(cmdline, axes.seeds[0], axes.cpus[0], mebibytes << 20, choices, names)
        inside = Inspection(trace=bool(ops), ops=runoptions.ops_patterns(python_ops))
        job = _of_kernel(wanted, task, image, initrd, count=instructions, inside=inside)
        job.again.update({"phases": phases, "ops": ops, "python-ops": python_ops})
    with ProgressListener(len(job.requests)) as listener, heard(hook_output, several=True) as hooks:
        observations = execute(job.requests, listener=listener, jobs=jobs, limits=job.limits, on_said=hooks.said)
    common = {
        "cpus": task.vcpus,
        "seed": task.seed,
        "memory": task.memory >> 20,
        "set": tuple(settings or ()),
        "plugin": plugins,
    }
    comparison = Comparison(
        grouped(observations),
        (*job.plan.skipped, *unsupported(observations)),
        tuple(loaded.errors),
        plugin_errors_count=wanted.errors_count,
        command=again("compare", {"backends": ",".join(wanted.names)} | job.again | common),
        choice=choice,
    )
    _report(comparison, json, html, svg)
    return comparison.exit_code


@attrs.frozen
class _Wanted:
    """Backends asked for: those there are, the names given (none for all), plugins given by path, and their time."""

    loaded: Loaded
    names: tuple[str, ...]
    plugins: tuple[str, ...]
    max_seconds: float

    @property
    def errors_count(self) -> bool:
        """Whether a broken plugin makes the comparison fail."""
        return (
            not self.names
            or not self.loaded.backends.keys() >= set(self.names)
            or runoptions.broken_paths(self.loaded, self.plugins)
        )

    def chosen(self) -> list[str]:
        """Names of backends to run; one that was asked for and is broken has been told of, and is left out.

        Raises:
            UsageError: a backend that is not there at all.
        """
        whole = [name for name in self.names if name not in runoptions.broken_names(self.loaded)]
        return [] if self.names and not whole else choose("backend", whole, bases_first(self.loaded.backends))


@attrs.frozen
class _Job:
    """What will be run, what each run may take, and the options that ask for it again."""

    plan: RunPlan
    requests: list[Request]
    limits: Limits
    again: dict[str, object]


def _names_of(backends: str | None) -> tuple[str, ...]:
    """The backends asked for; none for all.

    Raises:
        UsageError: the list was given and is empty.
    """
    found = tuple(runoptions.names(backends or ""))
    if backends is not None and not found:
        raise UsageError("--backends names none; leave it out to compare all that are installed")
    return found


def _refuse(what: str, options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(f"--{name} goes with {what} only")


def _ops(patterns: Sequence[str], kernel: Path | None) -> tuple[str, ...]:
    """The ops asked for, of those that the kernel has: a wrong name is found now, and not when all is done.

    Raises:
        ImageError: the kernel cannot be read, or its table is of no layout that is known.
        UsageError: it has no such op.
    """
    from pvops_core.images import load_image  # noqa: PLC0415 - heavy, and not needed without names
    from pvops_core.ops import LAYOUTS  # noqa: PLC0415
    from pvops_core.patching.sites import read_sites  # noqa: PLC0415
    from pvops_core.patching.tables import find_table  # noqa: PLC0415

    if not patterns or kernel is None:
        return ()
    image = load_image(kernel)
    sites = read_sites(image)
    return named_ops(patterns, [find_table(image, sites).layout] if sites else LAYOUTS.values())


def _of_builtin(wanted: _Wanted, task: Workload, layouts: Sequence[str], kinds: Sequence[str]) -> _Job:
    backends = wanted.loaded.backends
    chosen = _layouts(layouts, kinds)
    plan = plan_builtin({name: machine_kinds(backends[name], backends) for name in wanted.chosen()}, chosen, task)
    requests = [
        Request(cell, wanted.plugins, without=wanted.loaded.broken, max_seconds=wanted.max_seconds)
        for cell in plan.cells
    ]
    again: dict[str, object] = {"layouts": ",".join(chosen) if layouts or kinds else "", "cmdline": task.cmdline}
    return _Job(plan, requests, worker_limits(wanted.max_seconds, task.memory), again)


def _of_kernel(
    wanted: _Wanted, task: Workload, kernel: Path, initrd: Path | None, *, count: bool, inside: Inspection
) -> _Job:
    files = Files(str(kernel), str(initrd or ""), kernels.kernel_kind(kernel))
    plan = plan_kernel(wanted.chosen(), wanted.loaded.backends, files, task, count=count)
    requests = [
        Request(
            cell,
            wanted.plugins,
            without=wanted.loaded.broken,
            max_seconds=wanted.max_seconds,
            examine=True,
            inside=inside,
        )
        for cell in plan.cells
    ]
    again: dict[str, object] = {
        "kernel": files.kernel,
        "initrd": files.initrd,
        "cmdline": task.cmdline,
        "workload": task.workloads,
    }
    return _Job(plan, requests, worker_limits(wanted.max_seconds, task.memory), again)


def _layouts(wanted: Sequence[str], kinds: Sequence[str]) -> dict[str, MachineKind]:
    """The wanted layouts that are of a wanted kind.

    Raises:
        UsageError: an unknown name.
    """
    there = runoptions.builtin_layouts()
    of_kinds = choose("machine kind", kinds, [kind.value for kind in MachineKind])
    return {name: there[name] for name in choose("layout", wanted, list(there)) if there[name].value in of_kinds}


def _report(comparison: Comparison, json: str | None, html: Path | None, svg: Path | None) -> None:
    write_json("compare", compare_result(comparison), json)
    if html:
        from pvops_core.compare.page import page  # noqa: PLC0415 - loads the plotter

        write_file(html, page(comparison).encode())
    if svg:
        from pvops_core.compare.picture import picture  # noqa: PLC0415 - loads rich's renderer

        write_file(svg, picture(comparison, "pvops compare").encode())
    if json == STDOUT:
        return
    from rich.console import Console  # noqa: PLC0415 - not needed for JSON

    from pvops_core.compare.text import print_comparison  # noqa: PLC0415

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    print_comparison(comparison, console)
    if not (json or html or svg):
        console.print(_HINT, style="dim")
