"""The template of a backend: released ones stay as they are, and projects are brought up."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from pvops_core.backends import load_backends
from pvops_core.cli import main, template
from tests.cli.projects import PYTEST, run

NEXT = f"v{len(template.versions()) + 1}"


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
