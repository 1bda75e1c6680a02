"""A new backend is complete: it installs, is listed, passes its tests and the smoke part of the suite, and compares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pvops_core.cli import main
from pvops_core.plugins import load_backends

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
PVOPS = (sys.executable, "-c", "import sys; from pvops_core.cli import main; sys.exit(main())")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    assert main(["new-backend", "my_demo", "--directory", str(folder), "--json", os.devnull]) == 0
    return folder


def run(*command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_is_a_backend_at_once(project: Path) -> None:
    loaded = load_backends([str(project)], environ={})
    assert "my_demo" in loaded.backends
    assert loaded.sources["my_demo"].distribution == "pvops-my-demo"
    assert (project / ".github/workflows/test.yml").is_file()
    assert not [path for path in project.rglob("*") if "{" in path.name or path.suffix == ".jinja"]


def test_its_own_tests_pass_and_its_ops_pass_the_suite(project: Path) -> None:
    run(*PYTEST, cwd=project)
    options = ("--pvops-ops", "io_delay", "--pyargs", "pvops_core.testing.conformance")
    assert "SUCCESS" in run(*PYTEST, *options, cwd=project).stdout


def test_it_installs_and_is_listed(project: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--target", str(target), str(project), cwd=tmp_path)
    listed = run(*PVOPS, "backends", "--json", "-", cwd=tmp_path, PYTHONPATH=str(target)).stdout
    rows = {row["name"]: row["distribution"] for row in json.loads(listed)["backends"]}
    assert rows["my_demo"] == "pvops-my-demo"


@pytest.mark.slow
def test_it_compares(project: Path) -> None:
    run(*PVOPS, "compare", "--plugin", str(project), "--backends", "native,my_demo", "--json", os.devnull, cwd=project)


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


def test_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pvops-demo").mkdir()
    (tmp_path / "pvops-demo" / "mine").write_text("mine")
    assert main(["new-backend", "demo"]) == 2
    assert [path.name for path in (tmp_path / "pvops-demo").iterdir()] == ["mine"]
