"""A plugin's source is parsed once, and again when it, or what comes before it, has changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pvops_core.backends.finding.found import Found
from pvops_core.backends.finding.summary import Summary
from pvops_core.cli import keptsummary
from pvops_core.cli.keptsummary import summary

SOURCE = """
from pvops_core.backends import API, Backend
from mine.ops import Ops
backend = Backend(name="mine", api=API, ops=Ops, base="native")
"""
OPS = """
from pvops_core.hookspecs import hookimpl
class Ops:
    @hookimpl
    def {hook}(self, cpu): ...
"""
LONG_AGO = 1_700_000_000


def settle(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(keptsummary, "_SETTLED_NS", 0)  # a change of a file's state has a time that cannot be set
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first")])  # others' folders change while tests run
    package = tmp_path / "plugins" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SOURCE)
    (package / "ops.py").write_text(OPS.format(hook="clts"))
    settle(package.parent)
    return package


@pytest.fixture
def found(folder: Path) -> Found:
    return Found("mine", "mine", "1", "mine:backend", folders=(folder.parent,))


@pytest.fixture
def parsed(found: Found, monkeypatch: pytest.MonkeyPatch) -> list[Found]:
    """What has been read, once there is a summary."""
    assert summary(found).hooks == ("clts",)
    read: list[Found] = []
    reader = keptsummary.read_summary
    monkeypatch.setattr(keptsummary, "read_summary", lambda one: read.append(one) or reader(one))
    return read


def test_it_is_parsed_once(found: Found, parsed: list[Found]) -> None:
    assert summary(found) == Summary("mine", "", "native", ("clts",), ())
    assert not parsed


@pytest.mark.parametrize(
    "change",
    [
        lambda package: (package / "ops.py").write_text(OPS.format(hook="wbinvd")),
        lambda package: (package / "ops.py").write_text(OPS.format(hook="halt")),  # of the same size
        lambda package: [(package / "ops").mkdir(), (package / "ops" / "__init__.py").write_text(OPS.format(hook="a"))],
        lambda package: (package / "ops.py").unlink(),
    ],
    ids=["longer", "same size", "another before it", "gone"],
)
def test_what_changed_is_parsed_again(
    folder: Path, found: Found, parsed: list[Found], change: Callable[[Path], object]
) -> None:
    change(folder)
    assert summary(found).hooks != ("clts",)
    assert len(parsed) == 1


def test_a_new_folder_of_the_import_path_is_looked_at(folder: Path, found: Found, parsed: list[Found]) -> None:
    (folder.parents[1] / "first").mkdir()
    assert summary(found).hooks == ("clts",)
    assert len(parsed) == 1


def test_damage_is_parsed_again(folder: Path, found: Found, parsed: list[Found]) -> None:
    (file,) = (folder.parents[1] / "cache" / "pvops" / "summaries").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert summary(found).hooks == ("clts",)
    keptsummary._KEPT.write(file.name.rpartition("-")[0], b"", b"\x93")
    assert summary(found).hooks == ("clts",)
    assert len(parsed) == 2


def test_what_was_written_a_moment_ago_is_not_kept(folder: Path, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keptsummary, "_SETTLED_NS", 2_000_000_000)
    (folder / "ops.py").write_text(OPS.format(hook="clts"))
    assert summary(found).hooks == ("clts",)
    assert not (folder.parents[1] / "cache").exists()


@pytest.mark.usefixtures("folder")
def test_what_has_no_source_says_nothing() -> None:
    assert summary(Found("x", "x", "1", "nowhere_at_all:backend")) == Summary()
