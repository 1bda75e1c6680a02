"""A broken plugin means the same to every verb: it is named once, and the exit code is that of a fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvops_core.cli import main
from tests.session.selfpatching import SelfPatching

VERBS = {
    "run": ("run", "--layout", "6.1-64", "--backend"),
    "boot": ("boot", "KERNEL", "--memory", "32", "--backend"),
    "compare": ("compare", "--layouts", "6.1-64", "--backends"),
    "compare --kernel": ("compare", "--kernel", "KERNEL", "--memory", "32", "--backends"),
    "patch": ("patch", "KERNEL", "--backend"),
    "prove": ("prove", "--kernel", "KERNEL", "--memory", "32", "--backend"),
    "livepatch run": ("livepatch", "run", "SCRIPT", "--backend"),
}
every_verb = pytest.mark.parametrize("verb", VERBS)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a kernel, a script, and a plugin that is broken, as a file and as a project."""
    (tmp_path / "KERNEL").write_bytes(SelfPatching.of("mmu.write_cr3").build(body=(0,)).data)
    (tmp_path / "SCRIPT").write_text("1ms list\n")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "bad.py").write_text("raise SystemExit(2)")
    (tmp_path / "project" / "pyproject.toml").write_text(
        "[project]\nname = 'pvops-bad'\nversion = '1'\n[project.entry-points.'pvops.backends']\nbad = 'bad:backend'\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@every_verb
@pytest.mark.parametrize("given", ["project", os.path.join("project", "bad.py")])  # noqa: PTH118 - as it is typed
@pytest.mark.parametrize("backend", ["bad", "native"])
@pytest.mark.usefixtures("place")
def test_a_broken_plugin_given_by_path_is_a_fault(
    verb: str, given: str, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether its backend is asked for, or another."""
    assert main([*VERBS[verb], backend, "--plugin", given]) == 4
    assert capsys.readouterr().err.count("loading it raised SystemExit: 2") == 1


@every_verb
@pytest.mark.usefixtures("place")
def test_a_broken_one_of_the_environment_is_a_fault_where_it_is_asked_for(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PVOPS_PLUGINS", os.path.join("project", "bad.py"))  # noqa: PTH118
    assert main([*VERBS[verb], "bad"]) == 4
    captured = capsys.readouterr()
    assert "loading it raised SystemExit: 2" in captured.err + captured.out


@every_verb
@pytest.mark.usefixtures("place")
def test_a_backend_that_there_is_not_is_wrong_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*VERBS[verb], "natvie"]) == 2
    err = capsys.readouterr().err
    assert "no backend 'natvie'; there are " in err
    assert "(did you mean native?)" in err
