from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pvops_core.child.limits import Limits, resident_bytes
from pvops_core.kinds import MachineKind
from pvops_core.records import line
from pvops_core.runs import wire
from pvops_core.runs.cell import Cell
from pvops_core.runs.counts import Counts, PlatformCounts
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.pool import default_jobs, execute

PRELUDE = """
import json, os, signal, sys, time
request = json.loads(sys.stdin.readline())
def say(**document): print(json.dumps(document), flush=True)
def answer(**fields): say(observation={"cell": request["cell"], "outcome": "poweroff", **fields})
backend = request["cell"]["backend"]
"""


class Recorder:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def started(self, cell: Cell) -> None:
        self.events.append(("started", cell.backend))

    def console(self, cell: Cell, text: str) -> None:
        self.events.append((text, cell.backend))

    def finished(self, observation: Observation) -> None:
        self.events.append(("finished", observation.cell.backend))


def requests(*backends: str) -> list[wire.Request]:
    return [wire.Request(Cell(backend, "6.1-64", MachineKind.X86_64)) for backend in backends]


def worker(script: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + script]


def one(script: str, limits: Limits | None = None) -> Observation:
    (observation,) = execute(requests("b"), listener=Recorder(), limits=limits, command=worker(script))
    return observation


def test_an_answer_comes_back_with_its_console_streamed() -> None:
    recorder = Recorder()
    fields = "reason='fine', counts={'platform': {'flushes': 3}}"
    script = f"say(phase='running the guest'); say(console='guest: hello'); answer({fields})"
    (observation,) = execute(requests("b"), listener=recorder, command=worker(script))
    counts = Counts(platform=PlatformCounts(flushes=3))
    assert observation == Observation(requests("b")[0].cell, Outcome.POWEROFF, reason="fine", counts=counts)
    assert recorder.events == [("started", "b"), ("guest: hello", "b"), ("finished", "b")]


@pytest.mark.parametrize(
    ("script", "outcome", "words"),
    [
        ("say(phase='running the guest'); os.abort()", Outcome.DIED, ["SIGABRT", "running the guest"]),
        ("sys.exit(3)", Outcome.DIED, ["exit status 3", "starting"]),
        ("os.kill(os.getpid(), 63)", Outcome.DIED, ["signal 63"]),
        ("print('hello world')", Outcome.GARBAGE, ["'hello world'"]),
        ("print('[' * 200000)", Outcome.GARBAGE, ["no sense"]),
        ("say(observation={'cell': request['cell'], 'outcome': 'lovely'})", Outcome.GARBAGE, ["lovely"]),
        ("request['cell']['seed'] = 9; answer()", Outcome.GARBAGE, ["another run"]),
        ("sys.stdout.write('{')", Outcome.GARBAGE, ["no sense"]),
        ("sys.stdout.buffer.write(b'\\xff\\n')", Outcome.GARBAGE, ["no sense"]),
    ],
)
def test_a_worker_that_fails_is_a_typed_result(script: str, outcome: Outcome, words: list[str]) -> None:
    observation = one(script)
    assert observation.outcome is outcome
    for word in words:
        assert word in observation.reason


def test_what_was_printed_before_a_death_is_kept() -> None:
    observation = one("say(console='guest: so far'); print('so sad', file=sys.stderr, flush=True); os.abort()")
    assert observation.console == "guest: so far"
    assert observation.detail == "so sad"


PHASES = [phase.value for phase in wire.WorkerPhase]
_START = "the guest had not started after 0.5 s of wall time"


@pytest.mark.parametrize(
    ("phase", "said", "whose"),
    [
        ("loading backends", _START, " for b"),
        ("building the machine", _START, " for b"),
        ("running the guest", "no end after 0.5 s of wall time", ""),
        ("collecting what was observed", "no answer within 0.5 s of the guest's end", ""),
    ],
)
def test_a_worker_without_end_is_stopped(phase: str, said: str, whose: str) -> None:
    start = time.monotonic()
    observation = one(f"say(phase={phase!r}); time.sleep(60)", Limits(start_s=0.5, wall_s=0.5))
    assert time.monotonic() - start < 20
    assert observation.outcome is Outcome.TIMEOUT
    assert observation.reason == f"{said}, while {phase}{whose}"


def test_each_part_of_a_run_has_its_own_time() -> None:
    steps = "; time.sleep(1); ".join(f"say(phase={phase!r})" for phase in PHASES)
    observation = one(f"{steps}; time.sleep(1); answer()", Limits(start_s=60, wall_s=0))
    assert observation.outcome is Outcome.POWEROFF
    late = one(
        f"say(phase={PHASES[1]!r}); time.sleep(0.6); say(phase={PHASES[2]!r}); time.sleep(60)", Limits(start_s=1)
    )
    assert late.reason == "the guest had not started after 1 s of wall time, while building the machine for b"


@pytest.mark.parametrize(
    "words", ["Could not allocate dynamic translator buffer", "x.so: failed to map segment", "MemoryError"]
)
def test_a_worker_that_gave_up_for_want_of_memory(words: str) -> None:
    observation = one(f"print({words!r}, file=sys.stderr); sys.exit(1)")
    assert observation.outcome is Outcome.MEMORY
    assert observation.reason.startswith("the host refused memory while starting Python: ask for less")
    assert observation.detail == words


def test_a_worker_that_grows_is_stopped() -> None:
    observation = one("hoard = b'x' * (300 << 20); time.sleep(60)", Limits(memory=200 << 20))
    assert observation.outcome is Outcome.MEMORY
    assert "200 MiB" in observation.reason


@pytest.mark.parametrize("script", ["print('x' * (3 << 20))", "while True: say(console='x' * 1000)"])
def test_a_worker_that_floods_is_stopped(script: str) -> None:
    observation = one(script, Limits(output=2 << 20))
    assert observation.outcome is Outcome.GARBAGE
    assert observation.reason == "the worker wrote more than 2 MiB"


def test_error_output_never_blocks_a_worker_and_its_end_is_kept() -> None:
    observation = one("sys.stderr.write('x' * (1 << 20) + 'the end'); sys.stderr.flush(); os.abort()")
    assert observation.detail.endswith("xthe end")
    assert len(observation.detail) < 10_000


def test_a_worker_that_cannot_be_started(tmp_path: Path) -> None:
    (observation,) = execute(requests("b"), listener=Recorder(), command=[str(tmp_path / "none")])
    assert observation.outcome is Outcome.DIED
    assert "could not be started" in observation.reason


def test_one_bad_cell_leaves_the_others_their_results_and_order() -> None:
    names = ["a", "dies", "b", "babbles", "hangs", "c"]
    script = """
{"dies": os.abort, "babbles": lambda: print("?"), "hangs": lambda: time.sleep(60)}.get(backend, answer)()
"""
    limits = Limits(start_s=3)
    observations = execute(requests(*names), listener=Recorder(), jobs=3, limits=limits, command=worker(script))
    assert [o.cell.backend for o in observations] == names
    assert [o.outcome.value for o in observations] == ["poweroff", "died", "poweroff", "garbage", "timeout", "poweroff"]


def test_no_more_than_jobs_run_at_once() -> None:
    recorder = Recorder()
    execute(requests("a", "b", "c"), listener=recorder, jobs=1, command=worker("answer()"))
    assert recorder.events == [(event, name) for name in "abc" for event in ("started", "finished")]
    assert default_jobs(1) == 1
    assert 1 <= default_jobs(1000) <= (os.cpu_count() or 1)


def alive(pid: int) -> bool:
    """There is such a process, and it is not just waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Interrupting(Recorder):
    """A listener that presses Ctrl-C when the guest speaks."""

    pid = 0

    def console(self, cell: Cell, text: str) -> None:
        super().console(cell, text)
        self.pid = int(text)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_ends_the_children() -> None:
    listener = Interrupting()
    script = "say(console=str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        execute(requests("b"), listener=listener, command=worker(script))
    assert listener.pid
    assert not alive(listener.pid)


class Failing(Recorder):
    """A listener whose terminal has gone."""

    def console(self, cell: Cell, text: str) -> None:
        raise BrokenPipeError(cell.title + text)


def test_an_error_of_the_listener_ends_the_execution() -> None:
    with pytest.raises(BrokenPipeError):
        execute(requests("a", "b"), listener=Failing(), command=worker("say(console='x'); time.sleep(60)"))


def test_children_that_are_ending_when_others_fail_are_still_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    unclosed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unclosed.append)
    command = ["/bin/sh", "-c", """read line; echo '{"console": "x"}'; sleep 60"""]
    for _ in range(5):
        with pytest.raises(BrokenPipeError):
            execute(requests(*"abcdef"), listener=Failing(), jobs=6, command=command)
        gc.collect()
    assert unclosed == []


PARENT = """
import sys, time, threading
from pvops_core.runs import wire
from pvops_core.runs.cell import Cell
from pvops_core.runs.pool import execute
sys.path.insert(0, sys.argv[1])
from recorder import Printing
command = [sys.executable, "-c", sys.argv[2]]
execute([wire.Request(Cell("b", "6.1-64", "x86_64"))], listener=Printing(), command=command)
"""
LEAVING = """
import json, os, sys, threading, time
from pvops_core.child.serving import lines_of_parent
from pvops_core.runs.worker.parentpipe import listen
from pvops_core.backends.keyboard import Keyboard
lines = lines_of_parent()
next(lines)
threading.Thread(target=listen, args=(lines, Keyboard()), daemon=True).start()
print(json.dumps({"console": str(os.getpid())}), flush=True)
time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "recorder.py").write_text(
        "class Printing:\n"
        "    def started(self, cell): pass\n"
        "    def finished(self, observation): pass\n"
        "    def console(self, cell, text): print(text, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), LEAVING], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.communicate()
    wait_until(lambda: not alive(pid))


def test_resident_memory_is_told_in_bytes() -> None:
    resident = resident_bytes(os.getpid())
    assert resident is not None
    assert 1 << 20 < resident < 1 << 40
    assert resident_bytes(1 << 30) is None


def test_requests_are_json() -> None:
    assert json.loads(line(requests("b")[0]))["cell"]["backend"] == "b"
