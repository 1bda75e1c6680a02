"""``--max-seconds`` is the guest's, from its first instruction, on every platform; start-up has a limit of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from pvops_core.cli import main
from pvops_core.testing.images import ElfBuilder

SPIN = bytes.fromhex("90 fa ebfe")  # nop; cli; a jump to itself
XEN_SPIN = bytes.fromhex("90 ebfe")
SECONDS = 1.0
PLUGIN = """
from pvops_core.backends import API, Backend
from pvops_lguest import backend as lguest
from pvops_lguest.platform import LguestPlatform


class Stuck(LguestPlatform):
    def build(self):
        super().build()
        entry = self.machine_address(self.guest.entry - self.guest.kernel_base)
        self.machine.memory.write(entry, bytes.fromhex("90 ebfe"))


backend = Backend(
    name="stuck", api=API, description="Loops at its entry.", base="lguest", platform=Stuck, kinds=lguest.kinds
)
"""


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A kernel that loops without interrupts, for bare metal."""
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", SPIN))
    path = tmp_path / "vmlinux"
    path.write_bytes(builder.build())
    return str(path)


@pytest.fixture
def domain(tmp_path: Path) -> str:
    """A kernel that loops with events masked, as a domain of Xen begins."""
    builder = ElfBuilder(64, 0xFFFFFFFF81000000)
    builder.symbol("start", builder.text(".text", XEN_SPIN))
    builder.section(".page", bytes(0x1000))
    word = (0xFFFFFFFF81000000).to_bytes(8, "little")
    base = (0xFFFFFFFF80000000).to_bytes(8, "little")
    strings = ((6, b"test\0"), (8, b"generic\0"), (5, b"xen-3.0\0"))
    builder.notes(*(("Xen", kind, text) for kind, text in strings), ("Xen", 1, word), ("Xen", 3, base))
    path = tmp_path / "vmlinux-xen"
    path.write_bytes(builder.build())
    return str(path)


def run(*words: object) -> tuple[int, str, float]:
    """Exit code, what was printed, and how long the guest ran."""
    with NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "pvops_core", *map(str, words), "--json", file.name]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=200, check=False)
        assert not done.stderr
        return done.returncode, done.stdout, float(json.loads(Path(file.name).read_bytes())["wall_s"])


@pytest.fixture
def stuck(tmp_path: Path) -> str:
    """A plugin with a host of lguest whose guest loops with interrupts off."""
    path = tmp_path / "stuck.py"
    path.write_text(PLUGIN)
    return str(path)


@pytest.mark.parametrize("backend", ["native", "xen", "lguest"])
def test_a_loop_without_interrupts_ends_in_time_at_a_named_address(
    backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "lguest":
        words = ["run", "--plugin", request.getfixturevalue("stuck"), "--backend", "stuck"]
    else:
        kernel = request.getfixturevalue("domain" if backend == "xen" else "bare")
        words = ["boot", kernel, "--backend", backend, "--memory", "32"]
    code, out, seconds = run(*words, "--max-seconds", SECONDS)
    assert code == 6
    assert re.search(r"timeout: the wall time allowed is over; vcpu 0 at (start|entry)\+0x[12] ", out)
    assert seconds >= 0.99 * SECONDS


SLOW = """
import os, time
from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl
from pvops_core.kinds import MachineKind

class Ops:
    def __init__(self, env):
        {init}

    @hookimpl
    def write_cr3(self, cpu, cr3):
        {write_cr3}

def spin():
    while True:
        pass

{top}
backend = Backend(name="slow", api=API, base="native", ops=Ops, kinds=frozenset(MachineKind))
"""
ONCE_TRIED = "if '_PVOPS_TERMINAL' in os.environ: spin()"  # where the run's own process imports it, as nothing before


def slow(folder: Path, **parts: str) -> list[object]:
    path = folder / "slow.py"
    path.write_text(SLOW.format(**{"init": "pass", "write_cr3": "pass", "top": ""} | parts))
    return ["run", "--plugin", path, "--backend", "slow"]


def test_starting_up_takes_nothing_from_the_guests_time(tmp_path: Path) -> None:
    code, out, seconds = run(*slow(tmp_path, init="time.sleep(4)", write_cr3="spin()"), "--max-seconds", 2)
    assert code == 6
    assert "timeout: no end after 2 s of wall time, while running the guest" in out
    assert seconds == 0


def test_a_hook_that_does_not_come_back_is_shown_with_its_own_lines(tmp_path: Path) -> None:
    code, out, _ = run(*slow(tmp_path, write_cr3="spin()"), "--max-seconds", SECONDS)
    assert code == 6
    assert "timeout: no end after 1 s of wall time, while running the guest" in out
    assert re.search(r'slow\.py", line \d+ in spin\n.*slow\.py", line \d+ in write_cr3\n', out)
    assert "pvops_core/" not in out


@pytest.mark.parametrize(
    ("parts", "doing", "frame"),
    [
        ({"init": "spin()"}, "building the machine for slow", "__init__"),
        ({"top": ONCE_TRIED}, "loading backends for slow", "<module>"),
    ],
)
def test_a_start_that_does_not_end_says_what_was_waited_for(
    parts: dict[str, str], doing: str, frame: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVOPS_START_TIMEOUT", "5")
    code, out, _ = run(*slow(tmp_path, **parts), "--max-seconds", 0.5)
    assert code == 6
    assert f"timeout: the guest had not started after 5 s of wall time, while {doing}" in out
    assert f"in {frame}\n" in out
    assert "pvops_core/" not in out


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_limit_for_starting_that_is_none(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PVOPS_START_TIMEOUT", text)
    assert main(["run"]) == 2
    assert f"PVOPS_START_TIMEOUT: {text!r} is not a number of seconds" in capsys.readouterr().err
