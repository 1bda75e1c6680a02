"""Good plugins: installed ones, those given by path, and backends on backends."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pvops_core.backends import chain, discover, implemented, load_backends
from pvops_core.errors import UsageError
from tests.backends.conftest import HEAD, ONLY_HERE, Shelf

TOWER = """
base = make("base")
top = make("top", base="base", platform=None)
"""

ENTRIES = {name: f"tower:{name}" for name in ("base", "top")}


def test_a_chain_is_the_backend_and_its_bases(shelf: Shelf) -> None:
    shelf.put("tower", TOWER, entries=ENTRIES)
    loaded = load_backends(environ=ONLY_HERE)
    assert not loaded.errors
    assert [link.name for link in chain(loaded.backends["top"], loaded.backends)] == ["top", "base"]
    with pytest.raises(UsageError, match="based on 'base', which is not there"):
        chain(loaded.backends["top"], {})


def test_inherited_and_renamed_methods_are_hooks(shelf: Shelf) -> None:
    code = """
    class Parent:
        def __init__(self, env): ...
        @hookimpl
        def halt(self, cpu): ...

    class Ops(Parent):
        @hookimpl(specname="write_cr3")
        def load_base(self, cpu, cr3): ...
        @staticmethod
        @hookimpl
        def wbinvd(cpu): ...
        def safe_halt(self, cpu, more): "unmarked, so an ordinary method"

    backend = make("good", ops=Ops)
    """
    shelf.put("the-good-one", code)
    loaded = load_backends(environ=ONLY_HERE)
    assert not loaded.errors
    assert implemented(loaded.backends["good"]) == {"halt", "write_cr3", "wbinvd"}


def _module(folder: Path, name: str = "mine.py", code: str = "backend = make('mine')") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"{HEAD}\n{code}\n")
    return file


def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    file = _module(tmp_path, code="backend = make('mine')\nother = make('other')")
    loaded = load_backends([str(file), f"{file}:other"], environ=ONLY_HERE)
    assert set(loaded.backends) == {"mine", "other"}
    assert loaded.sources["other"].distribution == f"{file}:other"


def test_files_of_one_name_do_not_hide_each_other(tmp_path: Path) -> None:
    one, two = _module(tmp_path / "a"), _module(tmp_path / "b", code="backend = make('yours')")
    assert set(load_backends([str(one), str(two)], environ=ONLY_HERE).backends) == {"mine", "yours"}


def test_a_package_is_a_plugin(tmp_path: Path) -> None:
    _module(tmp_path / "mine", "helper.py", "NAME = 'mine'")
    _module(tmp_path / "mine", "__init__.py", "from .helper import NAME\nbackend = make(NAME)")
    assert set(load_backends([str(tmp_path / "mine")], environ=ONLY_HERE).backends) == {"mine"}


@pytest.mark.parametrize("source", [".", "src"])
def test_a_project_is_a_plugin(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    name = f"project_{source.strip('.') or 'flat'}"
    _module(tmp_path / source, f"{name}.py")
    project = '[project]\nname = "my-project"\nversion = "7"\n'
    entries = f'[project.entry-points."pvops.backends"]\nmine = "{name}:backend"\n'
    (tmp_path / "pyproject.toml").write_text(project + entries)
    (found,) = discover([str(tmp_path)], environ=ONLY_HERE)
    assert (found.name, found.distribution, found.version) == ("mine", "my-project", "7")
    assert set(load_backends([str(tmp_path)], environ=ONLY_HERE).backends) == {"mine"}


def test_a_module_attribute_is_a_plugin(shelf: Shelf) -> None:
    shelf.put("the-good-one", "backend = make('good')", entries={})
    assert set(load_backends(["the_good_one:backend"], environ=ONLY_HERE).backends) == {"good"}


def test_the_environment_adds_by_glob_and_takes_away_by_glob(tmp_path: Path) -> None:
    _module(tmp_path, "one.py", "backend = make('one')")
    _module(tmp_path, "two.py", "backend = make('two')")
    more = {"PVOPS_PLUGINS": f"{tmp_path}/*.py"} | ONLY_HERE
    assert set(load_backends(environ=more).backends) == {"one", "two"}
    fewer = more | {"PVOPS_DISABLE_PLUGINS": "pvops-*, *two.py"}
    assert set(load_backends(environ=fewer).backends) == {"one"}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("nowhere", None, "neither a Python file, a package, a project nor module:attribute"),
        ("pyproject.toml", "[project", "pyproject.toml cannot be read"),
        ("pyproject.toml", "[project]\nname = 'x'", "declares no entry point in group pvops.backends"),
        ("pyproject.toml", "project = 3", "declares no entry point in group pvops.backends"),
        ("notes.txt", "", "neither a Python file"),
    ],
)
def test_a_path_that_is_no_plugin_is_reported(tmp_path: Path, name: str, content: str | None, problem: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    given = str(tmp_path / name) if name == "nowhere" else str(tmp_path)
    (error,) = load_backends([given], environ=ONLY_HERE).errors
    assert problem in error.message
    assert error.distribution in {given, "x"}


def test_a_file_that_fails_may_be_mended_and_loaded_again(tmp_path: Path) -> None:
    file = _module(tmp_path, code="raise SystemExit")
    assert load_backends([str(file)], environ=ONLY_HERE).errors
    _module(tmp_path, code="backend = make('mended')")
    assert set(load_backends([str(file)], environ=ONLY_HERE).backends) == {"mended"}


@pytest.mark.parametrize("fewer", ["pvops-*", "pvops-*,the-good-*"])
def test_a_working_copy_stands_in_for_the_installed_distribution(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fewer: str
) -> None:
    """Also where the installed one is left out by its name: what is named on the command line stays."""
    monkeypatch.setattr("sys.path", [*sys.path])
    shelf.put("the-good-one", "backend = make('good', description='installed')")
    _module(tmp_path / "copy", "the_good_one.py", "backend = make('good', description='copy')")
    entries = '[project.entry-points."pvops.backends"]\ngood = "the_good_one:backend"\n'
    (tmp_path / "copy" / "pyproject.toml").write_text(f'[project]\nname = "The_Good.One"\n{entries}')
    copy = str(tmp_path / "copy")
    loaded = load_backends([copy, copy], environ=ONLY_HERE | {"PVOPS_DISABLE_PLUGINS": fewer})
    assert not loaded.errors
    assert loaded.backends["good"].description == "copy"
    assert [note.message for note in loaded.notes] == [
        "it is used from where it was given, in place of the installed 1.2.3"
    ]


def test_a_file_of_a_taken_name_comes_to_it_as_it_is_told(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("the-good-one", "backend = make('good')")
    file = str(_module(tmp_path, code="backend = make('good', description='file')"))
    (error,) = load_backends([file], environ=ONLY_HERE).errors
    assert error.message.endswith("PVOPS_DISABLE_PLUGINS=the-good-one")
    told = ONLY_HERE | {"PVOPS_DISABLE_PLUGINS": "pvops-*,the-good-one"}
    assert load_backends([file], environ=told).backends["good"].description == "file"
