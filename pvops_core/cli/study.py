"""``pvops study``: many runs over axes, kept by content and told of as one table."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import attrs
import typer
from typer.core import TyperGroup

from pvops_core.cli.common import (
    STDOUT,
    ExitCode,
    JsonOption,
    print_table,
    require,
    usage_alone,
    write_file,
    write_json,
)
from pvops_core.cli.options import runoptions
from pvops_core.cli.options.workerlimits import worker_limits
from pvops_core.errors import UsageError, printable
from pvops_core.runs.costs import quantity
from pvops_core.runs.pool import default_jobs
from pvops_core.study.axes import AXES
from pvops_core.study.diff import diff_junit, lines_of, study_diff
from pvops_core.study.document import StudyMerged, study_status
from pvops_core.study.estimate import estimate
from pvops_core.study.job import Job, read_job
from pvops_core.study.progress import StudyProgress
from pvops_core.study.report import StudyReport, told
from pvops_core.study.runner import LocalRunner, pending, run_cells
from pvops_core.study.sources import SourceWatch
from pvops_core.study.store import FILE, PlannedRow, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pvops_core.child.limits import Limits
    from pvops_core.runs.wire import Request
    from pvops_core.study.runner import Runner


_PIPED_WIDTH: Final = 200


class _Study(TyperGroup):
    """A group whose verb ``run`` need not be named: what stands there then is a file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - the base class's type is private
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


study: Final = typer.Typer(
    name="study",
    cls=_Study,
    invoke_without_command=True,
    callback=usage_alone,
    add_completion=False,
    rich_markup_mode=None,
    help="Make many runs over axes, and keep them.\n\n`pvops study FILE.toml` plans the runs of "
    "FILE.toml, makes those that are not there yet, and keeps each as it ends. The file says what is run: backends, "
    'cpus, memory, seeds, kernels and others, each a value or a list of them, and ranges such as "0..9".',
)
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The study, a TOML file.")]
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of results.")]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Folder of results; NAME.results of NAME.toml, here, if not given."
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan: cells, time and memory; run nothing.")]
JobsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Runs at once; one for each CPU if not given.")
]
SchedulerOption = Annotated[
    str, typer.Option("--scheduler", metavar="ADDRESS", help="Run on the cluster of this Dask scheduler.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Run on a Dask cluster of so many workers on this machine."),
]
RetryOption = Annotated[
    bool,
    typer.Option(
        "--retry", help="Run again what was lost: timed out, died, was refused memory, or failed by pvops or a plugin."
    ),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page with the tables, plots over each axis, and every run."),
]
CsvOption = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the runs as CSV.")]
ParquetOption = Annotated[Path | None, typer.Option("--parquet", metavar="FILE", help="Write the runs as Parquet.")]


@study.command("run")
def run(
    file: FileArgument,
    *,
    output: OutputOption = None,
    dry_run: DryRunOption = False,
    jobs: JobsOption = None,
    scheduler: SchedulerOption = "",
    workers: WorkersOption = None,
    retry: RetryOption = False,
    json: JsonOption = None,
    csv: CsvOption = None,
    parquet: ParquetOption = None,
    html: HtmlOption = None,
) -> int:
    """Run a study.

    Cells whose results are there are not run again: a study that was stopped, by Ctrl-C or otherwise, goes on where it
    was. A changed kernel, plugin or pvops makes the cells concerned be run again.

    Exit code: 0 equal, 5 results differ, 6 a guest crashed or timed out, 4 pvops or a plugin failed, 3 nothing ran, 2
    the file or folder is at fault.
    """
    wishes = StudyWishes(
        dry_run=dry_run,
        jobs=jobs,
        scheduler=scheduler,
        workers=workers,
        retry=retry,
        json=json,
        csv=csv,
        parquet=parquet,
        html=html,
    )
    job = read_job(file)
    folder = output or Path(f"{file.stem}.results")
    return carry_out(job, folder, wishes)


@study.command("resume")
def resume(
    folder: FolderArgument,
    *,
    jobs: JobsOption = None,
    scheduler: SchedulerOption = "",
    workers: WorkersOption = None,
    retry: RetryOption = False,
    json: JsonOption = None,
    csv: CsvOption = None,
    parquet: ParquetOption = None,
    html: HtmlOption = None,
) -> int:
    """Go on with a folder's study.

    It is as its file was when it was run last.

    Exit code: 0 equal, 5 results differ, 6 a guest crashed or timed out, 4 pvops or a plugin failed, 3 nothing ran, 2
    the folder is at fault.
    """
    wishes = StudyWishes(
        jobs=jobs, scheduler=scheduler, workers=workers, retry=retry, json=json, csv=csv, parquet=parquet, html=html
    )
    with Store.read(folder) as store:
        job = Job.of_meta(store.meta())
    return carry_out(job, folder, wishes)


@study.command("status")
def status(folder: FolderArgument, *, json: JsonOption = None) -> int:
    """Say how far a folder's study is.

    Of each backend the cells that are done, left and failed.

    Exit code: 0 all are done, 3 some are left, 2 there are no results.
    """
    runoptions.check_folders(json)
    with Store.read(folder) as store:
        found = study_status(store)
    write_json("study", found, json)
    if json != STDOUT:
        done = found.planned - found.left
        sys.stdout.write(f"{printable(found.name)}: {done:,} of {found.planned:,} cells are done\n")
        rows = [(each.backend, each.done, each.left, each.failed) for each in found.backends]
        print_table(["backend", "done", "left", "failed"], rows)
    return found.exit_code


@study.command("results")
def results(
    folder: FolderArgument,
    *,
    json: JsonOption = None,
    csv: CsvOption = None,
    parquet: ParquetOption = None,
    html: HtmlOption = None,
) -> int:
    """Tell what a folder's study came to.

    Exit code: 0 equal, 5 results differ, 6 a guest crashed or timed out, 4 pvops or a plugin failed, 3 nothing ran, 2
    the folder is at fault.
    """
    wishes = StudyWishes(json=json, csv=csv, parquet=parquet, html=html)
    with Store.read(folder) as store:
        return _report(told(store), wishes)


@study.command("merge")
def merge(
    folder: FolderArgument,
    others: Annotated[list[Path], typer.Argument(metavar="OTHER...", help="Folders whose runs are added.")],
    *,
    json: JsonOption = None,
) -> int:
    """Add runs of other folders to one.

    They may be of a study that was split, or run on several machines. A run that is there already stays, unless it was
    lost and the other was not. The cells of all are then the study's.

    Exit code: 0 fine, 2 a folder is at fault.
    """
    runoptions.check_folders(json)
    added = {}
    with Store.write(folder) as store:
        for other in others:
            with Store.read(other) as source:
                added[str(other)] = store.take(source)
                cells = dict.fromkeys([*store.planned(), *source.planned()])
                store.note(cells, source.meta() | store.meta())
    write_json("study", StudyMerged(folder=str(folder), added=added), json)
    if json != STDOUT:
        sys.stdout.writelines(f"{printable(other)}: {number:,} runs added\n" for other, number in added.items())
    return ExitCode.FINE


@study.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Folder of results as they were.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Folder of results as they are.")],
    *,
    json: JsonOption = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write a test case for each cell, as JUnit XML.")
    ] = None,
) -> int:
    """Say what changed between two folders.

    Cells are found by where they stand on the axes. How they end, results, op calls, hypercalls, sites, virtual time
    and hashes must be the same; wall time is told where it changed by more than chance, and counts as no difference.

    Exit code: 0 no change, 5 a cell changed or is missing, 3 no cell is in both, 2 a folder is at fault.
    """
    runoptions.check_folders(json, junit)
    with Store.read(old) as before, Store.read(new) as after:
        was, now = before.rows(), after.rows()
    found = study_diff(was, now)
    write_json("study", found, json)
    if junit:
        write_file(junit, diff_junit(found, now))
    if json != STDOUT:
        sys.stdout.writelines(f"{printable(line)}\n" for line in (found.verdict, *lines_of(found, was)))
    return found.exit_code


@attrs.frozen(kw_only=True)
class StudyWishes:
    """How a study is carried out, and what is written of it: the options of these names."""

    dry_run: bool = False
    jobs: int | None = None
    scheduler: str = ""
    workers: int | None = None
    retry: bool = False
    json: str | None = None
    csv: Path | None = None
    parquet: Path | None = None
    html: Path | None = None

    def __attrs_post_init__(self) -> None:
        _check(self.json, self.csv, self.parquet, self.html)
        if sum(map(bool, (self.jobs, self.scheduler, self.workers))) > 1:
            raise UsageError("--jobs, --scheduler and --workers each say where to run: give one of them")
        if self.scheduler or self.workers:
            require("cluster", "distributed")


def _check(json: str | None, csv: Path | None, parquet: Path | None, html: Path | None) -> None:
    """Refuse now what could not be written later."""
    if html:
        require("report", "jinja2", "matplotlib")
    if parquet:
        require("parquet", "polars")
    runoptions.check_folders(json, csv, parquet, html)


def carry_out(job: Job, folder: Path, wishes: StudyWishes) -> int:
    """Plan a study, run what is not there yet, and report; the exit code."""
    loaded = runoptions.load(job.plugins)
    plan = job.plan(loaded)
    watch = SourceWatch(plan.cells, loaded.backends)
    planned = [PlannedRow(cell.axes, *cell.hashes, cell.key) for cell in plan.cells]
    if wishes.dry_run:
        return _show_plan(job, folder, wishes)
    with Store.write(folder) as store:
        store.note(planned, job.meta(plan))
        left = pending(plan.cells, kept := store.keys(), retry=wishes.retry)
        here = sum(cell.key in kept for cell in plan.cells)
        try:
            with _runner(job, wishes) as runner, StudyProgress(left, here) as progress:
                run_cells(left, store, runner, progress, watch.check)
        except KeyboardInterrupt:
            done = len(store.keys().keys() & {cell.key for cell in plan.cells})
            sys.stderr.write(f"pvops: {done} runs are kept in {folder}; `pvops study resume {folder}` goes on\n")
            raise
        code = _report(told(store), wishes)
    return ExitCode.FAULT if loaded.errors and not job.spec.backends else code


@contextlib.contextmanager
def _runner(job: Job, wishes: StudyWishes) -> Iterator[Runner]:
    """Where the cells are run."""

    def limits(request: Request) -> Limits:
        return worker_limits(job.spec.max_seconds, request.cell.memory)

    if not (wishes.scheduler or wishes.workers):
        yield LocalRunner(limits, wishes.jobs)
        return
    from pvops_core.study.cluster import ClusterRunner, cluster_at, cluster_here  # noqa: PLC0415 - seldom, and heavy

    with cluster_at(wishes.scheduler) if wishes.scheduler else cluster_here(wishes.workers or 1) as client:
        if client.dashboard_link and find_spec("bokeh"):
            sys.stderr.write(f"pvops: the cluster's dashboard is at {client.dashboard_link}\n")
        yield ClusterRunner(client, limits, job.plugins)


def _show_plan(job: Job, folder: Path, wishes: StudyWishes) -> int:
    plan = job.plan(runoptions.load(job.plugins))
    kept, planned = {}, []
    if (folder / FILE).is_file():
        with Store.read(folder) as store:
            kept, planned = store.keys(), store.planned()
    left = pending(plan.cells, kept, retry=wishes.retry)
    varying = [name for name in AXES if len({getattr(cell.axes, name) for cell in plan.cells}) > 1]
    for name in varying:
        values = list(dict.fromkeys(getattr(cell.axes, name) for cell in plan.cells))
        sys.stdout.write(f"{name}: {_shown(values)}\n")
    for each in plan.skipped:
        sys.stdout.write(f"not run: {each.layout or 'a kernel'} on {each.backend}: {each.reason}\n")
    jobs = wishes.jobs or default_jobs(len(left) or 1)
    guess = estimate(left, jobs, planned, kept)
    told_by = "by runs that are kept" if guess.measured and left else "a guess"
    sys.stdout.write(
        f"{len(plan.cells):,} cells, {len(plan.cells) - len(left):,} of them are there; "
        f"{len(left):,} to run, {jobs} at once: about {quantity(guess.seconds, 's')} ({told_by}) "
        f"and {guess.memory >> 20:,} MiB\n"
    )
    return ExitCode.FINE if plan.cells else ExitCode.NOTHING


def _shown(values: Sequence[object], most: int = 8) -> str:
    shown = [str(value) if value != "" else "-" for value in values]
    if len(shown) > most:
        return f"{', '.join(shown[:3])} … {shown[-1]} ({len(shown):,})"
    return ", ".join(shown)


def _report(found: StudyReport, wishes: StudyWishes) -> int:
    write_json("study", found.document(), wishes.json)
    if wishes.csv:
        write_file(wishes.csv, found.csv().encode())
    if wishes.parquet:
        write_file(wishes.parquet, found.parquet())
    if wishes.html:
        from pvops_core.study.page import page  # noqa: PLC0415 - loads the plotter

        write_file(wishes.html, page(found).encode())
    if wishes.json != STDOUT:
        from rich.console import Console  # noqa: PLC0415 - not needed for JSON

        from pvops_core.study.text import print_answers  # noqa: PLC0415

        console = Console(highlight=False)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console = Console(highlight=False, width=_PIPED_WIDTH)
        print_answers(found.answers, console, found.replay)
    return found.answers.exit_code
