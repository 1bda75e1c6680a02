"""``pvops backends``: what it prints, what it writes and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvops_core.cli import main

GOOD = """
from pvops_core.backends import API, Backend, Platform
from pvops_core.hookspecs import hookimpl
from pvops_core.kinds import MachineKind
METHODS = {name: lambda self, *a: None for name in Platform.__abstractmethods__}
Bare = type("Bare", (Platform,), METHODS | {"loaders": {"builtin": print}})
class Ops:
    def __init__(self, env): ...
    @hookimpl
    def halt(self, cpu): ...
kinds = frozenset({MachineKind.PAE})
backend = Backend(name="mine", api=API, platform=Bare, ops=Ops, kinds=kinds, description="My own.")
"""


@pytest.fixture(autouse=True)
def _no_installed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVOPS_DISABLE_PLUGINS", "pvops-*")


def test_listing_imports_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("raise SystemExit(77)")
    assert main(["backends", "--plugin", str(bad), "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "pvops.backends/1"
    assert document["checked"] is False
    unknown = dict.fromkeys(("description", "base", "capabilities", "hooks", "settings"))
    known = {"name": "", "distribution": str(bad), "version": "", "entry_point": "bad:backend"}
    assert document["backends"] == [known | unknown]
    assert document["errors"] == []


def test_listing_says_what_the_source_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.py"
    file.write_text(GOOD + "raise SystemExit(77)")
    assert main(["backends", "--plugin", str(file)]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "distribution", "version", "base", "hooks", "capabilities", "description"]
    assert row.split() == ["mine", str(file), "-", "-", "1", "-", "My", "own."]


def test_checking_reports_each_broken_one_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(GOOD)
    bad.write_text("raise SystemExit(77)")
    target = tmp_path / "out.json"
    code = main(["backends", "--check", "--plugin", str(bad), "--plugin", str(good), "--json", str(target)])
    assert code == 4
    document = json.loads(target.read_text())
    (row,) = document["backends"]
    assert row["name"] == "mine"
    assert row["kinds"] == ["pae"]
    assert row["hooks"] == ["halt"]
    (error,) = document["errors"]
    assert error["distribution"] == str(bad)
    assert "SystemExit: 77" in error["message"]
    printed = capsys.readouterr()
    assert "My own." in printed.out
    assert "SystemExit: 77" in printed.err


def test_nothing_there_is_said_by_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backends"]) == 3
    assert not capsys.readouterr().out


def test_a_good_one_ends_well(tmp_path: Path) -> None:
    good = tmp_path / "good.py"
    good.write_text(GOOD)
    assert main(["backends", "--check", "--plugin", str(good)]) == 0
