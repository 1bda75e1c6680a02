"""The JSON of a kernel's boot, and of several guests' runs; that of one run is its observation's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pvops_core.images.findings import Image
from pvops_core.records import FLAT, Count, JsonRecord
from pvops_core.runs.observation import Observation
from pvops_core.runs.verdict import Judged, Verdict, exit_code_of


class BootResult(JsonRecord, frozen=True):
    """One boot of a real kernel.

    Attributes:
        image: The kernel.
        run: What was observed.
    """

    image: Image
    run: Annotated[Observation, FLAT]


class GuestRun(JsonRecord, frozen=True):
    """One guest's run, and what it said of itself.

    Attributes:
        name: Name of the image, with its folder where two have one name, and `~WORD` behind it for one of several ways
            to run it.
        verdict: What the guest's console says in its last line `Test result:`; `CRASH` where it says nothing, or the
            guest did not come to its own end; `ERROR` also where nothing ran, as `outcome` `unsupported` says.
        expected: The verdict that the file beside the image expects; null where it says nothing.
        as_expected: Whether the verdict is the expected one, and the run was not cut short; null where nothing was
            expected.
        why: Why it is no success, or not what was expected: lines of the guest's, or how it ended where it crashed.
        run: What was observed.
    """

    name: str
    verdict: Verdict
    expected: Verdict | None
    as_expected: bool | None
    why: tuple[str, ...]
    run: Annotated[Observation, FLAT]


class BootsResult(JsonRecord, frozen=True):
    """Several small guests, one run each: `pvops boot` of several images or of a folder.

    Attributes:
        exit_code: The command's exit code: that of the worst run.
        summary: Verdict -> number of runs.
        runs: The runs, in the order in which their images were given or found.
    """

    exit_code: Count
    summary: Mapping[str, Count]
    runs: tuple[GuestRun, ...]


def by_verdict(runs: Iterable[Judged]) -> dict[Verdict, list[Judged]]:
    """Each verdict, and the runs that have it."""
    found: dict[Verdict, list[Judged]] = {word: [] for word in Verdict}
    for run in runs:
        found[run.verdict].append(run)
    return found


def boots_result(runs: Mapping[str, Judged]) -> BootsResult:
    """The runs by name."""
    return BootsResult(
        exit_code_of(runs.values()),
        {word.value: len(these) for word, these in by_verdict(runs.values()).items()},
        tuple(
            GuestRun(name, run.verdict, run.expected, run.as_expected, run.why, run.observation)
            for name, run in runs.items()
        ),
    )
