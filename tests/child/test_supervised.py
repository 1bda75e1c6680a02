"""Children that do anything: answers, every way to be lost, and nothing that is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from pathlib import Path

import pytest

from pvops_core.child.limits import Limits
from pvops_core.child.supervised import Child, ChildLostError, Loss, finish, how_it_ended

BEGIN = "import os, signal, sys, time, subprocess\n"


async def asked(child: Child, limits: Limits, line: bytes = b"\n") -> bytes:
    try:
        await child.start(limits.output)
        await child.say(line)
        return await child.within(limits, child.answer())
    finally:
        await child.end()


def ask(code: str, **limits: float) -> bytes:
    return finish(asked(Child([sys.executable, "-c", BEGIN + code]), Limits(**limits)))  # type: ignore[arg-type]


def test_an_answer_is_a_line_and_ends_it() -> None:
    assert ask("print(sys.stdin.readline().strip() or 'nothing', flush=True); time.sleep(60)") == b"nothing\n"


@pytest.mark.parametrize(
    ("code", "loss", "reason"),
    [
        ("sys.exit(3)", Loss.DIED, "exit status 3"),
        ("os.abort()", Loss.DIED, "killed by SIGABRT"),
        ("os.close(1); time.sleep(0.2); os._exit(7)", Loss.DIED, "exit status 7"),
        ("time.sleep(60)", Loss.TIMEOUT, "no end after 0.5 s of wall time"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", Loss.TIMEOUT, "no end after 0.5 s of wall time"),
        ("print('x' * (2 << 20))", Loss.GARBAGE, "the child wrote more than 1 MiB"),
    ],
)
def test_every_way_to_be_lost(code: str, loss: Loss, reason: str) -> None:
    with pytest.raises(ChildLostError) as lost:
        ask(code, wall_s=0.5 if loss is Loss.TIMEOUT else 60, output=1 << 20)
    assert (lost.value.loss, lost.value.reason) == (loss, reason)


def test_one_that_grows_is_lost() -> None:
    with pytest.raises(ChildLostError, match="grew beyond 100 MiB of memory") as lost:
        ask("hoard = b'x' * (200 << 20); time.sleep(60)", memory=100 << 20)
    assert lost.value.loss is Loss.MEMORY


def test_what_it_started_ends_with_it() -> None:
    pid = int(ask("print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(60)"))
    with pytest.raises(ProcessLookupError):
        _wait_for_end(pid)


def _wait_for_end(pid: int) -> None:
    for _ in range(100):
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            raise ProcessLookupError  # whoever inherits it has not collected it yet
        os.kill(pid, 0)
        asyncio.run(asyncio.sleep(0.05))


@pytest.mark.parametrize(
    "away",
    [
        "subprocess.Popen(['sleep', '600'], start_new_session=True).pid",
        "subprocess.Popen(['sleep', '600'], process_group=0, stdout=subprocess.DEVNULL).pid",
        "int(subprocess.run(['sh', '-c', 'setsid sleep 600 >&- 2>&- & echo $!'], stdout=-1).stdout)",
    ],
    ids=["session", "group", "orphan"],
)
def test_so_does_what_left_its_group(away: str, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    pid = int(ask(f"print({away}, flush=True); time.sleep(60)"))
    for _ in range(100):  # who collects an orphan does so in its own time
        if not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes():
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"{pid} is there")
    assert time.monotonic() - start < 5
    gc.collect()
    assert capfd.readouterr().err == ""


def test_one_that_hides_costs_time_and_no_more(capfd: pytest.CaptureFixture[str]) -> None:
    """It has the child's pipes and none of its marks: the wait for their end is given up."""
    hidden = "subprocess.Popen(['sleep', '20'], env={}, start_new_session=True)"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pvops_core.child.supervised._DRAIN_S", 0.2)
        pid = int(ask(f"print({hidden}.pid, flush=True); time.sleep(60)"))
    os.kill(pid, 9)
    gc.collect()
    assert capfd.readouterr().err == ""


def test_a_process_that_cannot_be_started() -> None:
    with pytest.raises(OSError, match="no-such-program"):
        finish(asked(Child(["/no-such-program"]), Limits()))


def test_the_end_of_its_complaints_is_kept() -> None:
    child = Child([sys.executable, "-c", "import sys; sys.stderr.write('x' * (1 << 20) + 'the end')"])
    with pytest.raises(ChildLostError, match="exit status 0"):
        finish(asked(child, Limits()))
    assert child.complaints.endswith("xthe end")
    assert len(child.complaints) < 10_000


def test_it_may_be_asked_where_a_loop_runs() -> None:
    async def outer() -> bytes:
        return ask("print('fine')")

    assert asyncio.run(outer()) == b"fine\n"


@pytest.mark.parametrize(
    ("status", "told"), [(0, "exit status 0"), (-11, "killed by SIGSEGV"), (-63, "killed by signal 63")]
)
def test_how_a_process_ended(status: int, told: str) -> None:
    assert how_it_ended(status) == told
