"""The printed command runs the failed test again, pasted into a shell in another folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PLANTED = Path(__file__).parents[1] / "planted.py"
PYTEST = (sys.executable, "-m", "pytest", "-q")
FAILING = """
import pytest

@pytest.mark.pvops_kinds("x86_64")
@pytest.mark.parametrize("text", ["it's", "a b"])
def test_it(session, text):
    assert session.machine.seed == 0, f"seed {session.machine.seed}, rtc {session.platform.settings.rtc}"
"""


def run(folder: Path, *words: str) -> str:
    done = subprocess.run([*PYTEST, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def commands(shown: str) -> list[str]:
    """The lines under ``pvops replay``."""
    return re.findall(r"^-+ pvops replay -+\n(.*)$", shown, re.MULTILINE)


def pasted(command: str, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ["bash", "-c", f"{command} -p no:cacheprovider"]
    done = subprocess.run(
        words, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_test_of_ones_own(tmp_path: Path, workers: str) -> None:
    project = tmp_path / "a project"
    project.mkdir()
    (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\npvops_backend = 'bug0'\n")
    (project / "test_own.py").write_text(FAILING)
    (project / "planted.py").write_bytes(PLANTED.read_bytes())
    options = ("--pvops-plugin", "planted.py:bug0", "--pvops-seed", "7", "--pvops-set", "rtc=5", "-n", workers)
    found = commands(run(project, *options))
    assert len(found) == 2
    for command in found:
        shown = pasted(command, tmp_path / "elsewhere")
        assert "1 failed" in shown
        assert "seed 7, rtc 5" in shown


def test_a_test_that_imports_its_plugin(tmp_path: Path) -> None:
    """A project that is not installed, in the folder that pytest was called in, which the import path has then."""
    project = tmp_path / "mine"
    (project / "tests").mkdir(parents=True)
    entry = '[project.entry-points."pvops.backends"]\nmine = "mine_backend:backend"\n'
    (project / "pyproject.toml").write_text(f'[project]\nname = "mine"\nversion = "1"\n{entry}')
    (project / "mine_backend.py").write_text(
        "from pvops_core.backends import Backend\nbackend = Backend(name='mine', api=2, base='native')\n"
    )
    (project / "tests" / "test_mine.py").write_text(
        "from mine_backend import backend\n\ndef test_it(call):\n    assert backend.name != 'mine'\n"
    )
    (command, *_others) = commands(run(project, "--pvops-plugin", ".", "--pvops-backend", "mine"))
    shown = pasted(command, tmp_path / "elsewhere")
    assert "AssertionError" in shown
    assert "ModuleNotFoundError" not in shown


@pytest.mark.parametrize("by", ["folder", "PYTHONPATH"])
def test_a_plugin_by_its_module(tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found where pytest was called, or where PYTHONPATH says; a namespace package, and the tests elsewhere."""
    package, tests = tmp_path / "own" / "space" / "part", tmp_path / "own" / "tests"
    package.mkdir(parents=True)
    tests.mkdir()
    (package / "mine.py").write_text(
        "from pvops_core.backends import Backend\nbackend = Backend(name='mine', api=2, base='native')\n"
    )
    (tests / "test_mine.py").write_text(
        "from space.part.mine import backend\n\ndef test_it(call):\n    assert backend.name != 'mine'\n"
    )
    if by == "PYTHONPATH":
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    place = tmp_path / "own" if by == "folder" else tmp_path
    shown = run(place, "--pvops-plugin", "space.part.mine:backend", "--pvops-backend", "mine", str(tests))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (command, *_others) = commands(shown)
    assert "AssertionError" in pasted(command, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("test", "bug", "op"), [("test_law", "bug0", "save_fl"), ("test_calling_convention", "bug1", "io_delay")]
)
def test_one_of_the_suite(tmp_path: Path, test: str, bug: str, op: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "planted.py").write_bytes(PLANTED.read_bytes())
    (project / "pytest.ini").write_text(
        "[pytest]\npvops_backend = bug0\npvops_plugins = planted.py:bug0\n".replace("bug0", bug)
    )
    suite = ("--pyargs", "pvops_core.testing.conformance", "--pvops-ops", op, "--pvops-layouts", "2.6.24")
    shown = run(project, *suite, "-k", test, "--pvops-seed", "3")
    (command, *_others) = commands(shown)
    again = pasted(command, tmp_path / "elsewhere")
    assert "1 failed" in again
    said = [line for line in shown.splitlines() if line.startswith(f"{op} ")]
    assert any(line in again for line in said), "the same is said"


def test_what_failed_last_is_run_again(tmp_path: Path) -> None:
    """``--lf`` knows laws by their names."""
    options = ("--pvops-plugin", f"{PLANTED}:bug3", "--pvops-backend", "bug3", "--pvops-ops", "flush_tlb_kernel")
    suite = ("--pyargs", "pvops_core.testing.conformance", "--pvops-layouts", "6.1-64,2.6.24")
    first = run(tmp_path, *options, *suite)
    again = run(tmp_path, "--lf", *options, *suite)
    assert re.search(r"\b2 failed, \d+ passed", first)
    assert re.search(r"\b2 failed, \d+ deselected", again)


def test_a_law_of_an_installed_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``pip install --target`` leaves it: found by its entry point, and named by no option."""
    site, project = tmp_path / "site", tmp_path / "project"
    info = site / "acme_mine-1.0.dist-info"
    info.mkdir(parents=True)
    project.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pvops.backends]\nmine = acme_mine:backend\n")
    (site / "acme_mine.py").write_text(
        "from pvops_core.backends import Backend\nfrom pvops_core.hookspecs import hookimpl\n\n"
        "class Ops:\n    def __init__(self, env): ...\n"
        "    @hookimpl\n    def flush_tlb_kernel(self, cpu): ...\n\n"
        "backend = Backend(name='mine', api=2, base='native', ops=Ops)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    own = ("--pvops-backend", "mine", "--pvops-ops", "flush_tlb_kernel", "--pvops-layouts", "6.1-64")
    suite = ("--pyargs", "pvops_core.testing.conformance")
    (command, *_others) = commands(run(project, *own, *suite))
    assert re.search(r"\b1 failed, \d+ deselected", run(project, "--lf", *own, *suite))
    monkeypatch.delenv("PYTHONPATH")
    again = pasted(command, tmp_path / "elsewhere")
    assert "a stale translation was used after flush_tlb_kernel" in again
