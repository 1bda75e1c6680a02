"""The JSON of a study, without the schema's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pvops_core.compare.comparison import EXIT_EQUAL, EXIT_NOTHING_RAN
from pvops_core.records import Count, JsonRecord
from pvops_core.runs.plan import Skipped
from pvops_core.study.answers import POINT
from pvops_core.study.axes import Axes
from pvops_core.study.rows import Row
from pvops_core.study.statistics import Spread

if TYPE_CHECKING:
    from pvops_core.study.answers import Answers
    from pvops_core.study.store import Store


class StudySeries(JsonRecord, frozen=True):
    """The runs of one backend at one point.

    Attributes:
        point: Axis -> value, of all axes but seed, repeat and backend.
        backend: The backend.
        runs: Number of runs.
        costs: Cost -> its median, spread and ratio to the reference; what was not counted is not there.
    """

    point: Mapping[str, str | int]
    backend: str
    runs: Count
    costs: Mapping[str, Spread]


class StudyOdd(JsonRecord, frozen=True):
    """A run whose result is not what it should be.

    Attributes:
        cell: Where it stands.
        field: `results`, or `event_log` of a repeat that did not do the same again.
        expected: Where the run stands that it is measured by.
        replay: The command that makes the run again.
    """

    cell: Axes
    field: str
    expected: Axes
    replay: str


class StudyFailure(JsonRecord, frozen=True):
    """A run whose guest did not come to its own end.

    Attributes:
        cell: Where it stands.
        outcome: How it ended.
        reason: Why, in a line.
        replay: The command that makes the run again.
    """

    cell: Axes
    outcome: str
    reason: str
    replay: str


class StudyOutlier(JsonRecord, frozen=True):
    """A run far from the others of its backend at its point.

    Attributes:
        cell: Where it stands.
        cost: The cost.
        value: What it is.
        median: What is usual.
        replay: The command that makes the run again.
    """

    cell: Axes
    cost: str
    value: float
    median: float
    replay: str


class StudyResult(JsonRecord, frozen=True):
    """A study: its runs as rows, and what they came to.

    Attributes:
        name: Its title.
        verdict: The result in a sentence.
        exit_code: The command's exit code.
        planned: Number of its cells.
        run: Number of those that were run.
        reference: Backend that the others are measured by.
        odd: Runs whose result is not what it should be.
        failures: Runs whose guest did not come to its own end.
        series: Each backend at each point.
        outliers: Runs far from the others of their series.
        skipped: What does not go together.
        rows: Each run.
    """

    name: str
    verdict: str
    exit_code: Count
    planned: Count
    run: Count
    reference: str
    odd: tuple[StudyOdd, ...]
    failures: tuple[StudyFailure, ...]
    series: tuple[StudySeries, ...]
    outliers: tuple[StudyOutlier, ...]
    skipped: tuple[Skipped, ...]
    rows: tuple[Row, ...]


class BackendStatus(JsonRecord, frozen=True):
    """How far the cells of one backend are.

    Attributes:
        backend: The backend.
        done: Those whose run is kept.
        left: The others.
        failed: Those kept whose guest did not come to its own end.
    """

    backend: str
    done: Count
    left: Count
    failed: Count


class StudyStatus(JsonRecord, frozen=True):
    """`status`: how far a study is.

    Attributes:
        name: Its title.
        exit_code: The command's exit code.
        planned: Number of its cells.
        left: Number of those that are to be run yet.
        backends: Each backend's.
    """

    name: str
    exit_code: Count
    planned: Count
    left: Count
    backends: tuple[BackendStatus, ...]


class StudyMerged(JsonRecord, frozen=True):
    """`merge`: what came to a folder of results.

    Attributes:
        folder: It.
        added: Folder -> number of its runs that were not there yet.
    """

    folder: str
    added: Mapping[str, Count]


def study_status(store: Store) -> StudyStatus:
    """Of a folder's."""
    kept, cells = store.keys(), store.planned()
    backends = []
    for backend in dict.fromkeys(cell.axes.backend for cell in cells):
        own = [cell.key for cell in cells if cell.axes.backend == backend]
        done = [kept[key] for key in own if key in kept]
        failed = sum(each.outcome.exit_code not in {0, 2} for each in done)
        backends.append(BackendStatus(backend=backend, done=len(done), left=len(own) - len(done), failed=failed))
    left = sum(each.left for each in backends)
    code = EXIT_NOTHING_RAN if left else EXIT_EQUAL
    name = str(store.meta().get("name"))
    return StudyStatus(name=name, exit_code=code, planned=len(cells), left=left, backends=tuple(backends))


def study_result(
    answers: Answers, name: str, skipped: tuple[Skipped, ...], replay: Callable[[Row], str]
) -> StudyResult:
    """All of it."""
    return StudyResult(
        name=name,
        verdict=answers.verdict,
        exit_code=answers.exit_code,
        planned=answers.planned,
        run=len(answers.rows),
        reference=answers.reference,
        odd=tuple(StudyOdd(o.row.axes, o.field, o.expected.axes, replay(o.row)) for o in answers.odd),
        failures=tuple(
            StudyFailure(row.axes, row.measured.outcome.value, row.measured.reason, replay(row))
            for row in answers.failures
        ),
        series=tuple(
            StudySeries(dict(zip(POINT, each.point, strict=True)), each.backend, len(each.rows), each.spreads)
            for each in answers.series
        ),
        outliers=tuple(StudyOutlier(o.row.axes, o.cost, o.value, o.median, replay(o.row)) for o in answers.outliers),
        skipped=skipped,
        rows=tuple(answers.rows),
    )
