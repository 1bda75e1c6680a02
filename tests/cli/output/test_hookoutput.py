"""What hooks print, log and write reaches the user; ``breakpoint()`` has a terminal; coverage.py counts hooks."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pvops_core.cli import main
from tests import misdeeds
from tests.session.selfpatching import SelfPatching

FILE = misdeeds.__file__
SAID = [
    "printed by a hook",
    "complained",
    "INFO author: logged 7",
    "UserWarning: warned",
    "no end of line",
]
"""Of :func:`tests.misdeeds.talks`."""
TALKS = ("--backend", "talks_", "--layout", "6.1-64", "--plugin", f"{FILE}:talks_")


def tagged(lines: list[str], tag: str) -> None:
    for said in SAID:
        assert any(line.startswith(f"[{tag}, vcpu 0, ") and " ns] " in line and said in line for line in lines), said
    assert any("past sys.stdout" in line for line in lines)


def test_a_run_shows_what_its_hooks_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *TALKS, "--json", "-"]) == 0
    captured = capsys.readouterr()
    tagged(captured.err.splitlines(), "talks_.load_tr_desc")
    assert json.loads(captured.out)["outcome"] == "poweroff"


def test_what_hooks_say_can_be_collected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "said"
    assert main(["run", *TALKS, "--hook-output", str(target)]) == 0
    captured = capsys.readouterr()
    assert "printed by a hook" not in captured.err + captured.out
    tagged(target.read_text().splitlines(), "talks_.load_tr_desc")
    assert main(["run", *TALKS, "--hook-output", str(tmp_path / "no" / "said")]) == 2


def test_more_of_logging_can_be_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVOPS_LOG", "warning")
    assert main(["run", *TALKS]) == 0
    assert "logged 7" not in capsys.readouterr().err
    monkeypatch.setenv("PVOPS_LOG", "loud")
    assert main(["run", *TALKS]) == 2


def test_a_comparison_says_which_cells_hook_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--layouts", "6.1-64,2.6.24", "--backends", "native,talks_", "--plugin", f"{FILE}:talks_")
    assert main(["compare", *options, "--json", "-"]) == 0
    captured = capsys.readouterr()
    json.loads(captured.out)
    for cell in ("talks_ on 6.1-64 (x86_64): ", "talks_ on 2.6.24 (i386): "):
        own = [line.removeprefix(cell) for line in captured.err.splitlines() if line.startswith(cell)]
        tagged(own, "talks_.load_tr_desc")


@pytest.mark.parametrize(
    ("words", "tag"),
    [
        (["--hook", f"write_cr3={FILE}:hook_talks"], f"{FILE}:hook_talks"),
        (
            ["--backend", "kernel_talks", "--plugin", f"{FILE}:kernel_talks", "--ops", "write_cr3"],
            "kernel_talks.write_cr3",
        ),
    ],
)
def test_a_kernels_hook_is_heard(
    words: list[str], tag: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(SelfPatching.of("mmu.write_cr3").build(body=(0,)).data)
    assert main(["boot", str(path), "--memory", "32", *words]) == 0
    tagged(capsys.readouterr().err.splitlines(), tag)


def test_an_import_that_prints_is_heard_once(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plugin = tmp_path / "loud.py"
    plugin.write_text(
        "import os\nprint('imported')\nos.write(1, b'by number\\n')\nfrom pvops_core.backends import API, Backend\n"
        "backend = Backend(name='loud', api=API, description='d', base='native')\n"
    )
    assert main(["run", "--backend", "loud", "--layout", "6.1-64", "--plugin", str(plugin), "--json", "-"]) == 0
    captured = capfd.readouterr()
    json.loads(captured.out)
    assert captured.err.count("imported") == 1
    assert captured.err.count("by number") == 1


STOPS = """
from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl

class Ops:
    def __init__(self, env):
        self.calls = 0

    @hookimpl
    def load_tr_desc(self, cpu):
        self.calls += 1
        if self.calls == 1:
            here = 41
            breakpoint()
            print("gone on with", here)
        cpu.insn.ltr(0x40)

backend = Backend(name="stops", api=API, description="stops", base="native", ops=Ops)
"""
RUN = (sys.executable, "-m", "pvops_core", "run", "--layout", "6.1-64")


@pytest.fixture
def stops(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "stops.py"
    path.write_text(STOPS)
    return ("--backend", "stops", "--plugin", str(path))


def at_a_terminal(command: tuple[str, ...], typed: bytes) -> str:
    """Everything that a command shows at a terminal at which this is typed when it first prompts."""
    pid, terminal = pty.fork()
    if not pid:
        os.execvp(command[0], command)
    shown, end, waiting = b"", time.monotonic() + 120, True
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                shown += os.read(terminal, 1 << 16)
            except OSError:
                break
        if waiting and b"(Pdb) " in shown:
            waiting = False
            os.write(terminal, typed)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in {0, 4}
    os.close(terminal)
    return shown.decode(errors="replace")


def test_breakpoint_stops_at_the_terminal(stops: tuple[str, ...]) -> None:
    shown = at_a_terminal((*RUN, *stops, "--max-seconds", "100"), b"p here + 1\nhere = 5\nc\n")
    assert "stops.py(15)load_tr_desc()" in shown or "stops.py(16)load_tr_desc()" in shown
    assert "42" in shown
    assert re.search(r"\[stops\.load_tr_desc, vcpu 0, \d+ ns\] gone on with 5", shown)
    assert "outcome             poweroff" in shown


HOOK = """
def note(cpu, cr3):
    here = 41
    breakpoint()
    print("gone on with", here)
"""
CALLS = """
import pytest

@pytest.mark.pvops_kinds("x86_64")
def test_it(call):
    call("read_cr3")
"""


def test_breakpoint_of_a_kernels_hook_stops_at_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(HOOK)
    (tmp_path / "vmlinux").write_bytes(SelfPatching.of("mmu.write_cr3").build(body=(0,)).data)
    boot = (sys.executable, "-m", "pvops_core", "boot", str(tmp_path / "vmlinux"), "--memory", "32")
    shown = at_a_terminal((*boot, "--hook", f"write_cr3={tmp_path}/hook.py:note"), b"p here + 1\nhere = 5\nc\n")
    assert "hook.py(5)note()" in shown or "hook.py(4)note()" in shown
    assert "42" in shown
    assert re.search(r"hook\.py:note, vcpu 0, \d+ ns\] gone on with 5", shown)
    assert "outcome             poweroff" in shown


def test_breakpoint_under_pytest_stops_at_the_terminal(stops: tuple[str, ...], tmp_path: Path) -> None:
    """In the guest's own call, at its boot before the test."""
    (tmp_path / "test_it.py").write_text(CALLS)
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path / "test_it.py"))
    shown = at_a_terminal((*command, "--pvops-backend", "stops", "--pvops-plugin", stops[3]), b"p here + 1\nc\n")
    assert re.search(r"stops\.py\(1[56]\)load_tr_desc\(\)", shown)
    assert "42" in shown
    assert "1 passed" in shown


def test_breakpoint_takes_commands_from_a_pipe(stops: tuple[str, ...]) -> None:
    done = subprocess.run([*RUN, *stops], input="p here\nq\n", capture_output=True, text=True, check=False)
    assert "(Pdb) 41" in done.stderr
    assert "outcome             error: it was left in the debugger" in done.stdout
    assert done.returncode == 4


def test_breakpoint_in_a_comparison_says_that_there_is_no_terminal(
    stops: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--layouts", "6.1-64", "--backends", "native,stops", *stops[2:]]) == 0
    assert "is passed by: there is no terminal to give" in capsys.readouterr().err


def test_coverage_counts_hooks_in_workers(stops: tuple[str, ...], tmp_path: Path) -> None:
    """As docs/how-to/debug-a-hook.md says to."""
    settings = tmp_path / ".coveragerc"
    settings.write_text("[run]\npatch = subprocess\nparallel = true\nbranch = true\n")
    environment = os.environ | {"PYTHONBREAKPOINT": "0"}
    measure = [sys.executable, "-m", "coverage", "run", "-m", "pvops_core", "run", "--layout", "6.1-64", *stops]
    subprocess.run(measure, cwd=tmp_path, env=environment, check=True, capture_output=True)
    for words in (["combine", "--quiet"], ["json", "--quiet", "--include", stops[3], "-o", "found.json"]):
        subprocess.run([sys.executable, "-m", "coverage", *words], cwd=tmp_path, check=True, capture_output=True)
    (found,) = json.loads((tmp_path / "found.json").read_text())["files"].values()
    body = range(STOPS.splitlines().index("        self.calls += 1") + 1, len(STOPS.splitlines()) - 1)
    assert set(body) - {body[-1]} - set(found["executed_lines"]) <= {
        number for number, line in enumerate(STOPS.splitlines(), 1) if not line.strip()
    }
