"""Workers that stay: each run in a copy, and none that harms another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pvops_core.child.limits import Limits
from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from pvops_core.records import line
from pvops_core.runs import wire
from pvops_core.runs.cell import Cell
from pvops_core.runs.cellrun import WARM
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.pool import execute

SHIM = """
import os, signal, sys, time
from pvops_core.runs.worker import warm
from pvops_core.runs.observation import Observation, Outcome
def answer(request, send, keyboard):
    word = request.cell.workload
    send(f"{word} {os.getppid()}")
    exec(word)
    return Observation(request.cell, Outcome.POWEROFF)
warm.answer = answer
warm.load_backends = lambda **_: None
warm.main()
"""


class Quiet:
    def started(self, cell: Cell) -> None: ...

    def console(self, cell: Cell, text: str) -> None: ...

    def finished(self, observation: Observation) -> None: ...


def run(*words: str, jobs: int = 1, limits: Limits | None = None) -> tuple[Observation, ...]:
    requests = [wire.Request(Cell("native", "", MachineKind.X86_64, workload=word)) for word in words]
    command = [sys.executable, "-c", SHIM]
    return execute(requests, listener=Quiet(), jobs=jobs, limits=limits, command=command, stays=True)


class Noting(Quiet):
    def __init__(self) -> None:
        self.said: list[str] = []

    def console(self, cell: Cell, text: str) -> None:
        del cell
        self.said.append(text)


def workers(words: Sequence[str], limits: Limits | None = None) -> tuple[list[int], tuple[Observation, ...]]:
    """The worker of each run, and what came of it."""
    requests = [wire.Request(Cell("native", "", MachineKind.X86_64, workload=word)) for word in words]
    noting = Noting()
    command = [sys.executable, "-c", SHIM]
    found = execute(requests, listener=noting, jobs=1, limits=limits, command=command, stays=True)
    return [int(text.rpartition(" ")[2]) for text in noting.said], found


def test_one_process_makes_many_runs() -> None:
    made, found = workers(["pass"] * 5)
    assert len(set(made)) == 1
    assert [each.outcome for each in found] == [Outcome.POWEROFF] * 5


@pytest.mark.parametrize(
    ("death", "words"), [("os.abort()", "SIGABRT"), ("os._exit(3)", "exit status 3"), ("1 / 0", "exit status 1")]
)
def test_a_copy_that_dies_takes_nobody_with_it(death: str, words: str) -> None:
    made, (first, lost, last) = workers(["pass", death, "pass"])
    assert len(set(made)) == 1
    assert first.outcome is last.outcome is Outcome.POWEROFF
    assert lost.outcome is Outcome.DIED
    assert words in lost.reason


def test_a_worker_that_dies_is_replaced() -> None:
    made, (first, lost, last) = workers(["pass", "os.kill(os.getppid(), 9); os.abort()", "pass"])
    assert made[0] == made[1] != made[2]
    assert (first.outcome, lost.outcome, last.outcome) == (Outcome.POWEROFF, Outcome.DIED, Outcome.POWEROFF)
    assert "SIGKILL" in lost.reason


@pytest.mark.parametrize(
    ("word", "limits", "outcome"),
    [
        ("time.sleep(60)", Limits(wall_s=3.0, start_s=5.0), Outcome.TIMEOUT),
        ("_ = b'x' * (300 << 20); time.sleep(60)", Limits(memory=250 << 20), Outcome.MEMORY),
        ("send('x' * (1 << 20))", Limits(output=1 << 17), Outcome.GARBAGE),
    ],
)
def test_limits_hold_for_each_run(word: str, limits: Limits, outcome: Outcome) -> None:
    lost, fine = run(word, "pass", limits=limits)
    assert (lost.outcome, fine.outcome) == (outcome, Outcome.POWEROFF)


def test_runs_are_side_by_side(tmp_path: Path) -> None:
    """Each waits for all the others to have begun."""
    begun = f"open(f'{tmp_path}/{{os.getpid()}}', 'w').close()"
    meet = f"{begun}\nwhile len(os.listdir({str(tmp_path)!r})) < 4: time.sleep(.05)"
    answers = run(*[meet] * 4, jobs=4, limits=Limits(wall_s=60))
    assert [answer.outcome for answer in answers] == [Outcome.POWEROFF] * 4


def test_nothing_is_left_running() -> None:
    class Impatient(Quiet):
        def console(self, cell: Cell, text: str) -> None:
            del cell
            raise UsageError(text)

    requests = [wire.Request(Cell("native", "", MachineKind.X86_64, workload="time.sleep(60)"))]
    with pytest.raises(UsageError) as raised:
        execute(requests, listener=Impatient(), command=[sys.executable, "-c", SHIM], stays=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(str(raised.value).rpartition(" ")[2]), 0)


def test_a_parent_that_is_killed_takes_the_worker_and_its_copy_with_it() -> None:
    command = [sys.executable, "-c", SHIM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(line(wire.Request(Cell("native", "", MachineKind.X86_64, workload="time.sleep(60)"))))
        worker.stdin.flush()
        while not isinstance(message := wire.decode(worker.stdout.readline()), wire.Began):
            pass
        worker.stdin.close()
        assert worker.wait(20) == 1
        assert worker.stdout.read().count(b"\n") <= 1  # to its end: nobody holds the pipe any more
    with pytest.raises(ProcessLookupError):
        _gone(message.pid)


def _gone(pid: int) -> None:
    """Wait until a process that is nobody's child here has been collected: ProcessLookupError then."""
    for _ in range(100):
        os.kill(pid, 0)
        if Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError
        time.sleep(0.05)


@pytest.fixture
def of_builtin() -> list[wire.Request]:
    return [wire.Request(Cell("native", layout, MachineKind.X86_64)) for layout in ("6.1-64", "6.12-64", "6.1-64")]


def test_a_run_is_the_same_as_in_a_process_of_its_own(of_builtin: list[wire.Request]) -> None:
    cold = execute(of_builtin[:2], listener=Quiet())
    warm = execute(of_builtin, listener=Quiet(), jobs=1, command=WARM, stays=True)
    hashes = [(each.outcome, each.event_log_sha256, each.text_sha256) for each in (*warm, *cold)]
    assert hashes[0] == hashes[2] == hashes[3]
    assert hashes[1] == hashes[4]


def test_a_backend_that_is_not_there(tmp_path: Path) -> None:
    requests = [wire.Request(Cell("nobody", "6.1-64", MachineKind.X86_64), (str(tmp_path / "none.py"),))]
    (found,) = execute(requests, listener=Quiet(), command=WARM, stays=True)
    assert found.outcome in {Outcome.UNSUPPORTED, Outcome.ERROR}
    assert "none.py" in found.reason
