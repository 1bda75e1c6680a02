from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.counts import Counts, PlatformCounts
from pvops_core.runs.observation import Outcome
from pvops_core.runs.rounds import Amounts, Rounds
from pvops_core.study.answers import Answers
from pvops_core.study.document import study_result
from pvops_core.study.rows import Row
from pvops_core.study.text import print_answers

MakeRow = Callable[..., Row]
KERNEL = Cell("native", "", MachineKind.X86_64, guest="vmlinuz", workloads="fork:20")


def answers(*rows: Row, planned: int | None = None) -> Answers:
    return Answers(rows, "native", len(rows) if planned is None else planned)


def text(found: Answers) -> str:
    out = io.StringIO()
    print_answers(found, Console(file=out, width=200), lambda row: f"replay {row.axes.backend} {row.axes.seed}")
    return out.getvalue()


def grid(make_row: MakeRow, **fields: Any) -> list[Row]:  # noqa: ANN401
    return [
        make_row(backend, seed=seed, cpus=cpus, instructions=1000 * (1 + (backend == "xen")) + seed, **fields)
        for cpus in (1, 2)
        for seed in range(3)
        for backend in ("native", "xen")
    ]


def test_equal_results(make_row: MakeRow) -> None:
    found = answers(*grid(make_row))
    assert found.verdict == "Results are equal at each of 2 points, over 12 runs."
    assert (found.exit_code, found.odd, found.varying) == (0, [], ["cpus"])
    assert [(each.point[4], each.backend) for each in found.series] == [
        (c, b) for c in (1, 2) for b in ("native", "xen")
    ]
    native, xen = (each.spreads["instructions"] for each in found.series[:2])
    assert (native.median, native.low, native.high, native.ratio) == (1001, 1000, 1002, 1)
    assert xen.ratio == pytest.approx(2001 / 1001)
    assert "2 [2, 2]" in text(found)


def test_of_workloads_it_is_told_what_a_round_takes(make_row: MakeRow) -> None:
    """As a mean, with its ratio; what the boot took besides is in the rows alone."""

    def row(backend: str, hypercalls: int) -> Row:
        counts = Counts(platform=PlatformCounts({"iret": hypercalls} if hypercalls else {}, {"syscall": 50}))
        rounds = Rounds(20, 210, Amounts(counts, 1000))
        return make_row(backend, cell=KERNEL, rounds={"fork": rounds}, counts=counts)

    found = answers(row("native", 10), row("xen", 25))
    assert found.costs == ["round_traps", "round_hypercalls", "round_instructions", "wall_s"]
    native, xen = found.series
    assert (native.spreads["round_hypercalls"].median, xen.spreads["round_hypercalls"].median) == (0.5, 1.25)
    assert xen.spreads["round_hypercalls"].ratio == 2.5
    assert (found.rows[0].measured.traps, found.rows[0].measured.round_op_calls) == (50, None)
    said = text(found)
    assert "hypercalls a round" in said
    assert "1.25" in said


def test_a_result_that_differs_by_backend_or_seed(make_row: MakeRow) -> None:
    rows = grid(make_row)
    rows[5] = make_row("xen", seed=2, console="guest: ill\n")
    rows[2] = make_row("native", seed=1, results={"status": "other"})
    found = answers(*rows)
    assert found.exit_code == 5
    assert found.verdict == "Results differ in 2 of 12 runs."
    assert [(odd.row, odd.expected) for odd in found.odd] == [(rows[2], rows[0]), (rows[5], rows[0])]
    said = text(found)
    assert said.startswith("Results differ in 2 of 12 runs.")
    assert "replay native 1" in said
    assert "replay xen 2" in said


def test_a_repeat_that_does_something_else(make_row: MakeRow) -> None:
    found = answers(make_row(), make_row(repeat=2, event_log_sha256="ef" * 32), make_row(repeat=3))
    assert found.verdict == "1 repeat did not do the same again."
    assert [odd.row.axes.repeat for odd in found.odd] == [2]
    assert found.exit_code == 5


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(Outcome.CRASH, 6), (Outcome.TIMEOUT, 6), (Outcome.DIED, 4), (Outcome.MEMORY, 4), (Outcome.UNSUPPORTED, 0)],
)
def test_runs_that_did_not_finish(make_row: MakeRow, outcome: Outcome, code: int) -> None:
    lost = make_row("xen", outcome=outcome, reason="alas", event_log_sha256="")
    found = answers(make_row(), lost)
    assert found.exit_code == code
    assert found.failures == ([lost] if code else [])
    assert "alas" in text(found)
    assert found.series[1].spreads == {}


def test_what_is_not_run_yet(make_row: MakeRow) -> None:
    assert answers(planned=3).verdict == "Nothing ran. 3 of 3 cells are not run yet."
    assert answers(planned=3).exit_code == 3
    assert answers(make_row(), planned=3).verdict.endswith("over 1 run. 2 of 3 cells are not run yet.")
    assert "Nothing ran" in text(answers(planned=3))


def test_outliers_are_named(make_row: MakeRow) -> None:
    rows = [make_row(seed=seed, instructions=2000 if seed == 4 else 1000) for seed in range(8)]
    found = answers(*rows)
    assert [(o.row, o.cost, o.value, o.median) for o in found.outliers] == [(rows[4], "instructions", 2000, 1000)]
    assert "instructions 2,000, usually 1,000" in text(found)
    document = study_result(found, "a", (), lambda row: f"seed {row.axes.seed}")
    assert [each.replay for each in document.outliers] == ["seed 4"]
    assert document.series[0].costs["instructions"].median == 1000
