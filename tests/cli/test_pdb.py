"""``--pdb``: a prompt where a hook failed or the guest crashed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pvops_core.cli import main
from tests.cli.test_dumps import image

HOOK = """
def fails(cpu, cr3):
    wrong = cr3 + 1
    raise ValueError("not so")
"""


def at_prompt(typed: str, *words: str) -> tuple[int, str]:
    """Exit code, and what is shown on standard error, of a command at whose prompt this is typed."""
    command = (sys.executable, "-m", "pvops_core", *words)
    done = subprocess.run(command, input=typed, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr


@pytest.fixture
def failing(tmp_path: Path) -> str:
    path = tmp_path / "fails.py"
    path.write_text(HOOK)
    return f"{path}:fails"


def test_a_failed_hook_opens_a_prompt(failing: str) -> None:
    words = ("run", "--layout", "6.1-64", "--switch", f"write_cr3={failing}", "--pdb")
    typed = "error.__cause__\nwhere()\npost_mortem()\np wrong > 0\nq\nexit()\n"
    code, shown = at_prompt(typed, *words)
    assert code == 4
    assert "error: " in shown
    assert "ValueError('not so')" in shown
    assert "'vcpu 0 at " in shown
    assert "(Pdb) True" in shown
    assert "Names: session vcpus run" in shown


def test_a_crash_opens_a_prompt(tmp_path: Path) -> None:
    dead = image(tmp_path / "dead", b"\x0f\x0b")
    script = tmp_path / "nothing"
    script.touch()
    words = ("boot", dead, "--memory", "32", "--pdb", "--input", str(script))
    code, shown = at_prompt("where()\nread('nowhere')\nending.outcome\n", *words)
    assert code == 6
    assert "crash: " in shown
    assert "'vcpu 0 at " in shown
    assert "pvops: " in shown
    assert "no symbol 'nowhere'" in shown
    assert "Outcome.CRASH" in shown


def test_a_good_end_opens_none() -> None:
    code, shown = at_prompt("1/0\n", "run", "--layout", "6.1-64", "--pdb")
    assert (code, shown) == (0, "")


@pytest.mark.parametrize("words", [("run", "--explore", "2", "--pdb"), ("boot", "/bin/true", "/bin/true", "--pdb")])
def test_many_runs_have_no_one_prompt(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(words)) == 2
    assert "--pdb" in capsys.readouterr().err
