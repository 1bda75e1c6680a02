"""A new backend is complete: it installs, is listed, passes its tests and the smoke part of the suite, and compares."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pvops_core.backends import load_backends
from pvops_core.cli import main, template

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
NEXT = f"v{len(template.versions()) + 1}"
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
def test_with_parts_it_is_a_backend_at_once_too(parts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def git(folder: Path, *words: str) -> str:
    return run("git", "-c", "user.name=me", "-c", "user.email=me@example.com", *words, cwd=folder).stdout


@pytest.fixture
def kept(project: Path) -> Path:
    """A project that its author keeps in git."""
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "Begin")
    return project


@pytest.fixture
def newer(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A newer template: another docstring, a line more in the README, a file more and one less."""
    del kept
    versions = dict(template.versions())
    last = list(versions.values())[-1]
    assert isinstance(last, Path)
    folder = tmp_path / "template"
    shutil.copytree(last, folder)
    ops, readme = folder / "pvops_{{ name }}" / "ops.py.jinja", folder / "README.md.jinja"
    ops.write_text(ops.read_text().replace("Nothing: a virtual device", "Nothing at all: a virtual device"))
    readme.write_text(f"{readme.read_text()}\nMade of the next template.\n")
    (folder / "NEWS of {{ camel }}.jinja").write_text("{{ name }} on {{ base }}\n")
    (folder / "{{ dot }}github" / "workflows" / "test.yml.jinja").unlink()
    monkeypatch.setattr(template, "versions", lambda: versions | {NEXT: folder})
    return folder


def update(folder: Path, *more: str) -> int:
    return main(["new-backend", "my_demo", "--directory", str(folder), "--update", *more])


@pytest.mark.usefixtures("newer")
def test_an_update_keeps_what_the_author_changed(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ops, readme = kept / "pvops_my_demo" / "ops.py", kept / "README.md"
    mine = "\n    @hookimpl\n    def clts(self, cpu: Vcpu) -> None:\n        cpu.insn.clts()\n"
    ops.write_text(ops.read_text().replace("    @hookimpl\n    def io", f"{mine[1:]}\n    @hookimpl\n    def io"))
    readme.write_text(f"# My own title\n{readme.read_text().partition(chr(10))[2]}")
    (kept / "pvops_my_demo" / "more.py").write_text("MINE = 1\n")
    git(kept, "add", "--all")
    git(kept, "commit", "--quiet", "--message", "Mine")
    capsys.readouterr()
    assert update(kept, "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["conflicts"] == []
    assert set(document["files"]) == {
        ".copier-answers.yml", ".github/workflows/test.yml", "NEWS of MyDemo", "README.md", "pvops_my_demo/ops.py"
    }  # fmt: skip
    assert mine in ops.read_text()
    assert "Nothing at all: a virtual device" in ops.read_text()
    assert readme.read_text().startswith("# My own title\n")
    assert readme.read_text().endswith("Made of the next template.\n")
    assert (kept / "pvops_my_demo" / "more.py").read_text() == "MINE = 1\n"
    assert (kept / "NEWS of MyDemo").read_text() == "my_demo on native\n"
    assert template.answers_of(kept)["_commit"] == NEXT
    assert "my_demo" in load_backends([str(kept)], environ={}).backends


@pytest.mark.usefixtures("newer")
def test_where_both_changed_a_line_both_are_shown(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ops = kept / "pvops_my_demo" / "ops.py"
    ops.write_text(ops.read_text().replace("Nothing: a virtual device", "As I like it: a virtual device"))
    git(kept, "commit", "--quiet", "--all", "--message", "Mine")
    assert update(kept, "--json", os.devnull) == 5
    assert "ops.py: both you and the template changed the same lines" in capsys.readouterr().err
    for text in ("Nothing at all: a virtual", "As I like it: a virtual", "<<<<<<< before updating"):
        assert text in ops.read_text()


def test_an_update_to_the_same_template_changes_no_file(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert update(kept, "--json", os.devnull) == 0
    assert capsys.readouterr().out.split() == [str(kept / ".copier-answers.yml")]


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize("what", ["uncommitted", "no repository", "no answers", "another", "no copier", "no git"])
def test_an_update_that_cannot_be_made_changes_nothing(
    kept: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    match what:
        case "uncommitted":
            (kept / "README.md").write_text("mine")
        case "no repository":
            shutil.rmtree(kept / ".git")
        case "no answers":
            (kept / template.ANSWERS).unlink()
        case "another":
            (kept / template.ANSWERS).write_text("name: other\n")
        case "no copier":
            monkeypatch.setattr(template, "find_spec", lambda _name: None)
        case "no git":
            monkeypatch.setattr(template.shutil, "which", lambda _name: None)

    def files() -> dict[Path, str]:
        found = (path for path in kept.rglob("*") if path.is_file() and ".git/" not in str(path))
        return {path: path.read_text() for path in found}

    before = files()
    assert update(kept) == 2
    assert capsys.readouterr().err.startswith("pvops: ")
    assert files() == before


def test_a_released_template_is_never_changed() -> None:
    """Their files by hash: a change is a new version."""
    found = {}
    for name, folder in list(template.versions().items())[:-1]:
        assert isinstance(folder, Path)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        texts = (f"{path.relative_to(folder)}\n".encode() + path.read_bytes() for path in files)
        found[name] = hashlib.sha256(b"\n".join(texts)).hexdigest()[:16]
    assert found == {"v1": "bd971ab75d047ddb"}


@pytest.mark.filterwarnings("ignore::pvops_core.hookspecs.HookDeprecationWarning")
def test_a_project_of_the_first_template_works_and_can_be_brought_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        first = {"v1": template.versions()["v1"]}
        patch.setattr(template, "versions", lambda: first)
        folder = tmp_path / "project"
        answers = {"name": "old_demo", "distribution": "old-demo", "camel": "OldDemo", "base": "native"}
        template.fill_in(folder, answers | {"description": "Mine", "core": "0.1", "next": "0.2"})
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Begin")
    assert load_backends([str(folder)], environ={}).backends["old_demo"].api == 1
    assert main(["new-backend", "old_demo", "--directory", str(folder), "--update", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["conflicts"] == []
    pyproject = (folder / "pyproject.toml").read_text()
    assert "pvops-core[api-2]" in pyproject
    assert "<0.2" not in pyproject
    assert "core" not in template.answers_of(folder)
    git(folder, "commit", "--quiet", "--all", "--message", "Newer")
    run(*PYTEST, "-W", "error", cwd=folder)
