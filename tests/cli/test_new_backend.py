"""A new backend is complete: it installs, is listed, passes its tests and the smoke part of the suite, and compares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pvops_core.backends import load_backends
from pvops_core.cli import main, template
from tests.cli.projects import PYTEST, run

PVOPS = (sys.executable, "-c", "import sys; from pvops_core.cli import main; sys.exit(main())")


def test_it_is_a_backend_at_once(project: Path) -> None:
    loaded = load_backends([str(project)], environ={})
    assert "my_demo" in loaded.backends
    assert loaded.sources["my_demo"].distribution == "pvops-my-demo"
    assert (project / ".github/workflows/test.yml").is_file()
    assert not [path for path in project.rglob("*") if "{" in path.name or path.suffix == ".jinja"]


def test_its_own_tests_pass(project: Path) -> None:
    """The conformance suite and a comparison follow in ``make wheels``, installed."""
    run(*PYTEST, cwd=project)


def test_it_installs_and_is_listed(project: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--target", str(target), str(project), cwd=tmp_path)
    listed = run(*PVOPS, "backends", "--json", "-", cwd=tmp_path, PYTHONPATH=str(target)).stdout
    rows = {row["name"]: row["distribution"] for row in json.loads(listed)["backends"]}
    assert rows["my_demo"] == "pvops-my-demo"


@pytest.mark.parametrize("parts", ["platform", "patchlets", "platform,patchlets"])
def test_with_parts_it_is_a_backend_at_once_too(
    parts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    folder = tmp_path / "project"
    assert main(["new-backend", "my_demo", "--directory", str(folder), "--with", parts]) == 0
    told = capsys.readouterr().out
    assert f"pvops run --backend my_demo --plugin {folder}" in told
    there = {part for part in ("platform", "patchlets") if (folder / f"pvops_my_demo/{part}.py").is_file()}
    assert there == set(parts.split(","))
    assert template.answers_of(folder)["parts"] == parts
    run(*PYTEST, cwd=folder)
    ruff = (sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,E", "--line-length", "120", ".")
    run(*ruff, cwd=folder)


def test_the_next_steps_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But the suite, which has tests of its own."""
    assert main(["new-backend", "demo", "--directory", str(tmp_path / "a b")]) == 0
    steps = capsys.readouterr().out.partition("Next:\n")[2].splitlines()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for step in steps[:3]:
        run("bash", "-ec", step, cwd=tmp_path, PATH=path)


def test_the_next_steps_are_what_this_shell_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An environment that is not the shell's is named whole; without pytest the tests begin with its installation."""
    here = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(here))
    assert main(["new-backend", "demo", "--directory", str(tmp_path / "a")]) == 0
    told = capsys.readouterr().out.partition("Next:\n")[2]
    assert told.startswith("  pvops run ")
    assert "&& python -m pytest)" in told
    assert "pip install" not in told
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setattr("pvops_core.cli.new_backend.find_spec", lambda _name: None)
    assert main(["new-backend", "demo", "--directory", str(tmp_path / "b")]) == 0
    told = capsys.readouterr().out.partition("Next:\n")[2]
    assert told.startswith(f"  {sys.executable} -m pvops_core run ")
    assert f"  {sys.executable} -m pip install pytest\n  (cd {tmp_path / 'b'} && {sys.executable} -m pytest)" in told


def test_a_platform_stands_on_bare_metal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-backend", "demo", "--base", "xen", "--with", "platform"]) == 2
    assert main(["new-backend", "demo", "--with", "platfrom"]) == 2
    assert "did you mean platform?" in capsys.readouterr().err


@pytest.mark.slow
def test_its_types_hold(project: Path) -> None:
    """Hook calls are typed for authors: strict mypy accepts the template, and sees a hook's wrong argument."""
    (project / "pvops_my_demo" / "wrong.py").write_text(
        "from pvops_core.machine import Vcpu\n\ndef write_cr3(cpu: Vcpu) -> None:\n    cpu.cr3 = cpu.walk(0)\n"
    )
    mypy = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(project / "cache"), "pvops_my_demo", "tests")
    done = subprocess.run(mypy, cwd=project, capture_output=True, text=True, check=False)
    error, found = done.stdout.splitlines()
    assert error.startswith("pvops_my_demo/wrong.py:4: error: Incompatible types in assignment")
    assert found.startswith("Found 1 error in 1 file (checked ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("Demo",),
        ("1st",),
        ("a__b",),
        ("../up",),
        ("class",),
        ("demo", "--base", "not one"),
        ("demo", "--description", 'a "quoted" one'),
        ("demo", "--description", "two\nlines"),
        ("x" * 50,),
    ],
)
def test_bad_names_write_nothing(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-backend", *arguments]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("native", "there is a backend 'native' already, of pvops-native; give yours another name"),
        ("kernel", "'kernel' cannot be the name of a backend"),
        ("Ticker", "'Ticker' cannot be the name of a backend: a lower-case letter, then lower-case letters"),
    ],
)
def test_a_name_that_is_not_free_is_refused(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-backend", name]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pvops-demo").mkdir()
    (tmp_path / "pvops-demo" / "mine").write_text("mine")
    assert main(["new-backend", "demo"]) == 2
    assert [path.name for path in (tmp_path / "pvops-demo").iterdir()] == ["mine"]
