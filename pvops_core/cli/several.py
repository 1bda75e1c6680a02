"""``pvops boot`` of several images: one run each, in workers that stay, and what their guests say of themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

import attrs

from pvops_core.cli.common import STDOUT, write_file, write_json
from pvops_core.cli.options.ramdisks import ramdisk, shell_console
from pvops_core.cli.options.workerlimits import worker_limits
from pvops_core.cli.output.hookoutput import heard
from pvops_core.errors import UsageError, printable
from pvops_core.runs.cell import Cell
from pvops_core.runs.cellrun import WARM
from pvops_core.runs.document import boots_result, by_verdict
from pvops_core.runs.guestfiles import find_guests, names_of
from pvops_core.runs.junit import junit
from pvops_core.runs.pool import execute
from pvops_core.runs.verdict import Judged, Verdict, exit_code_of
from pvops_core.runs.wire import Request

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.runs.guestfiles import GuestFile
    from pvops_core.runs.observation import Observation

_MOST_SAID = 3


@attrs.frozen
class Common:
    """What the command line says of all runs, and what a file beside an image may say otherwise of its own.

    Attributes:
        backend: name of the backend.
        cmdline: command line of the guests.
        initrd: path of their initial ramdisk, or that they are to have one with a shell; empty for none.
        until: console text at which a run ends.
        cpus: virtual CPUs.
        memory: MiB.
        seed: of the runs.
        options: settings of the backend's platform.
        plugins: paths given with ``--plugin``.
        stop_at: place at which a run ends.
    """

    backend: str
    cmdline: str
    initrd: str
    until: str
    cpus: int
    memory: int
    seed: int
    options: Mapping[str, str]
    plugins: tuple[str, ...]
    stop_at: str

    def request(self, guest: GuestFile, max_seconds: float) -> Request:
        """The run of one guest."""
        mine = {
            name: getattr(self, name) if wish is None else wish
            for name, wish in attrs.asdict(guest.wishes).items()
            if name not in {"options", "expect"}
        }
        cell = Cell(
            self.backend,
            "",
            guest.kind,
            guest=str(guest.image),
            initrd=ramdisk(mine["initrd"], guest.kind),
            console_name=shell_console(mine["initrd"], self.backend, guest.kind, self.plugins),
            workload=mine["cmdline"],
            seed=mine["seed"],
            vcpus=mine["cpus"],
            memory=mine["memory"] << 20,
            count_instructions=False,
            options={**self.options, **guest.wishes.options},
        )
        return Request(cell, self.plugins, max_seconds=max_seconds, until=mine["until"], stop_at=self.stop_at)


class _Live:
    """Writes a line for each run when it is over."""

    def __init__(
        self, names: Sequence[str], expected: Sequence[Verdict | None], requests: Sequence[Request], text: TextIO
    ) -> None:
        keys = [_key(request.cell) for request in requests]
        self._runs = dict(zip(keys, zip(names, expected, strict=True), strict=True))
        self._text = text
        self._width = max(map(len, names))

    def started(self, cell: Cell) -> None:
        """What runs is not of interest: it takes a second."""

    def console(self, cell: Cell, text: str) -> None:
        """Consoles are in the JSON and the JUnit file."""

    def finished(self, observation: Observation) -> None:
        """Its line, and the first reasons below it if it is no success."""
        name, expected = self._runs[_key(observation.cell)]
        run = Judged(observation, expected)
        seconds = f"{observation.wall_s:7.2f} s" if observation.measured else ""
        note = "  as expected" if run.as_expected else ""
        lines = [f"{run.verdict.value:<8}{printable(name):<{self._width}}{seconds}{note}".rstrip()]
        reasons = run.why
        lines += [f"        {printable(reason)}" for reason in reasons[:_MOST_SAID]]
        if len(reasons) > _MOST_SAID:
            lines.append(f"        and {len(reasons) - _MOST_SAID} more")
        self._text.write("\n".join(lines) + "\n")
        self._text.flush()


def _key(cell: Cell) -> tuple[Cell, tuple[tuple[str, str], ...]]:
    return cell, tuple(cell.options.items())


def boot_several(
    paths: Sequence[Path],
    common: Common,
    max_seconds: float,
    *,
    only: str = "",
    jobs: int | None = None,
    json: str | None = None,
    junit_file: Path | None = None,
    hook_output: Path | None = None,
) -> int:
    """Run all guests of images and folders; the exit code of the worst."""
    guests = find_guests(paths, only)
    if not guests:
        raise UsageError(f"no kernel images in {', '.join(str(path) for path in paths)}")
    names = names_of(guests)
    requests = [common.request(guest, max_seconds) for guest in guests]
    text = sys.stderr if json == STDOUT else sys.stdout
    limits = worker_limits(max_seconds, max(request.cell.memory for request in requests))
    expected = [guest.wishes.expect for guest in guests]
    live = _Live(names, expected, requests, text)
    with heard(hook_output, several=True) as hooks:
        found = execute(requests, listener=live, jobs=jobs, limits=limits, command=WARM, stays=True, on_said=hooks.said)
    runs = dict(zip(names, map(Judged, found, expected), strict=True))
    code = exit_code_of(runs.values())
    text.write(f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}: {_counted(runs.values())}\n")
    write_json("boots", boots_result(runs), json)
    if junit_file is not None:
        write_file(junit_file, junit(runs))
    return code


def _counted(runs: Iterable[Judged]) -> str:
    """How many of each verdict, and how many of these were expected or were not where another was."""
    parts = []
    for word, these in by_verdict(runs).items():
        notes = [
            f"{number} {what}"
            for what, number in (
                ("as expected", sum(run.as_expected is True for run in these)),
                ("not as expected", sum(run.as_expected is False for run in these)),
            )
            if number
        ]
        if these:
            parts.append(f"{len(these)} {word.value}{' (' + ', '.join(notes) + ')' if notes else ''}")
    return ", ".join(parts)


def refuse(options: Mapping[str, object]) -> None:
    """Refuse what only the boot of one image has.

    Raises:
        UsageError: one of the options was given.
    """
    for name, value in options.items():
        if value:
            raise UsageError(f"--{name} goes with one image only")
