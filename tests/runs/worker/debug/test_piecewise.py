"""A run in pieces has its limits together, and the time that the guest stands for a debugger is nobody's."""

from __future__ import annotations

import time

import pytest

from pvops_core.backends import load_backends
from pvops_core.child.limits import Limits
from pvops_core.cli import main
from pvops_core.kinds import MachineKind
from pvops_core.runs import cellrun
from pvops_core.runs.cell import Cell
from pvops_core.runs.cellrun import CellRun, worker
from pvops_core.runs.wire import Request, Standing, WorkerPhase
from pvops_core.runs.worker.debug.piecewise import PiecewiseRun, runner
from pvops_core.session import Session

CELL = Cell("native", "6.1-64", MachineKind.X86_64)


@pytest.fixture
def session() -> Session:
    return Session.of_builtin("6.1-64", "native", backends=load_backends().backends)


def test_virtual_time_is_limited_over_all_pieces(session: Session) -> None:
    with session:
        run = PiecewiseRun(session, Request(CELL, max_ns=1_000_000))
        for _ in range(5):
            assert run(session.machine.vcpus).reason == "stepped"
        assert run().reason == "timeout"
        assert session.machine.clock.ns == pytest.approx(1_000_000, rel=0.01)
        assert run().reason == "timeout"


def test_wall_time_is_limited_over_all_pieces_and_not_between(session: Session) -> None:
    with session:
        run = PiecewiseRun(session, Request(CELL, max_seconds=0.4))
        run(session.machine.vcpus)
        time.sleep(0.5)
        assert run(session.machine.vcpus).reason == "stepped"
        stop = run()
        assert stop.reason in {"timeout", "poweroff"}  # a quick host is done before


def test_without_a_debugger_it_is_one_piece(session: Session) -> None:
    with session, runner(session, Request(CELL), lambda _: None, None) as run:
        assert run(PiecewiseRun(session, Request(CELL))).reason == "poweroff"


def test_a_guest_that_stands_is_not_given_up_by_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(cellrun.time, "monotonic", lambda: now)
    run = CellRun(Request(CELL), worker(), Limits(wall_s=10))
    run._note(WorkerPhase.RUNNING)
    for begin, end in ((5.0, 500.0), (501.0, 900.0)):
        now = begin
        run._note(Standing(stands=True))
        now = end
        assert not run._late()
        run._note(Standing(stands=False))
    now = 905.0  # it has run for 11 seconds, and has 2 more to say where it was
    assert not run._late()
    now = 907.0
    assert "no end after 10 s" in run._late()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--wait"], "--wait waits for a debugger"),
        (["--gdb", "x"], "--gdb takes PORT"),
        (["--gdb", "1:2:3"], "--gdb takes PORT"),
        (["--gdb", "192.0.2.1:0"], "nobody can listen at 192.0.2.1"),
        (["--gdb", "0", "--explore", "2"], "--explore makes many"),
    ],
)
def test_what_cannot_be_is_said(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *options]) == 2
    assert told in capsys.readouterr().err
