from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.child.limits import Limits
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.study.plan import Planned, StudyPlan, plan_study
from pvops_core.study.rows import HERE, Measured
from pvops_core.study.runner import LocalRunner, pending, run_cells
from pvops_core.study.spec import StudySpec
from pvops_core.study.store import PlannedRow, Store

if TYPE_CHECKING:
    from pvops_core.backends import Loaded

SPEC = StudySpec(backends=("native", "xen"), layouts="6.1-64", seeds="0..1")


class Watching:
    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def started(self, cell: Planned) -> None:
        self.events.append(("started", cell.axes.seed))

    def finished(self, cell: Planned, measured: Measured) -> None:
        assert measured.key == cell.key
        self.events.append(("finished", cell.axes.seed))


@pytest.fixture(scope="module")
def plan(loaded: Loaded) -> StudyPlan:
    return plan_study(SPEC, loaded, Path())


class Pretending:
    """A runner that gives observations at once, up to a number of them."""

    def __init__(self, observe: Callable[..., Observation], most: int = 99) -> None:
        self.observe, self.most, self.ran = observe, most, list[Planned]()

    def __call__(
        self, cells: Sequence[Planned], started: Callable[[int], None], ended: Callable[[int, Observation, str], None]
    ) -> None:
        for number, cell in enumerate(cells):
            if len(self.ran) == self.most:
                raise KeyboardInterrupt
            started(number)
            self.ran.append(cell)
            ended(number, self.observe(cell.axes.backend, seed=cell.axes.seed), "host")


def test_what_was_kept_is_not_run_again(plan: StudyPlan, store: Store, observe: Callable[..., Observation]) -> None:
    runner = Pretending(observe, most=3)
    with pytest.raises(KeyboardInterrupt):
        run_cells(pending(plan.cells, store.keys()), store, runner, Watching())
    assert len(store.keys()) == 3
    left = pending(plan.cells, store.keys())
    assert [cell.key for cell in left] == [plan.cells[3].key]
    more = Pretending(observe)
    run_cells(left, store, more, Watching())
    assert len(more.ran) == 1
    assert pending(plan.cells, store.keys()) == []


def test_another_seed_runs_its_own_cells_alone(
    plan: StudyPlan, loaded: Loaded, store: Store, observe: Callable[..., Observation]
) -> None:
    run_cells(plan.cells, store, Pretending(observe), Watching())
    wider = plan_study(StudySpec(backends=("native", "xen"), layouts="6.1-64", seeds="0..2"), loaded, Path())
    assert {cell.axes.seed for cell in pending(wider.cells, store.keys())} == {2}
    assert len(pending(wider.cells, store.keys())) == 2


def test_what_was_lost_may_be_tried_again(plan: StudyPlan, store: Store, observe: Callable[..., Observation]) -> None:
    ends = [Outcome.DIED, Outcome.CRASH, Outcome.TIMEOUT, Outcome.POWEROFF]
    for cell, outcome in zip(plan.cells, ends, strict=True):
        store.add(Measured.of(cell.key, observe(outcome=outcome), "host", 1), observe(outcome=outcome))
    assert pending(plan.cells, store.keys()) == []
    assert pending(plan.cells, store.keys(), retry=True) == [plan.cells[0], plan.cells[2]]


def test_a_key_is_run_once(loaded: Loaded) -> None:
    twice = plan_study(StudySpec(backends="native", layouts="6.1-64", cmdlines=("", "")), loaded, Path())
    assert len(twice.cells) == 2
    assert len(pending(twice.cells, {})) == 1


def test_two_workers_give_what_one_gives(plan: StudyPlan, tmp_path: Path) -> None:
    found = []
    for jobs in (1, 2):
        watching = Watching()
        with Store.write(tmp_path / str(jobs)) as store:
            store.note([PlannedRow(c.axes, *c.hashes, c.key) for c in plan.cells], {})
            run_cells(plan.cells, store, LocalRunner(lambda _request: Limits(), jobs), watching)
            rows = store.rows()
        assert len(rows) == 4
        assert sorted(watching.events) == sorted([("finished", 0), ("finished", 1), ("started", 0), ("started", 1)] * 2)
        assert {row.measured.outcome for row in rows} == {Outcome.POWEROFF}
        fields = [name for name in Measured.__struct_fields__ if name not in HERE]
        found.append([(row.axes, *(getattr(row.measured, name) for name in fields)) for row in rows])
    assert found[0] == found[1]
