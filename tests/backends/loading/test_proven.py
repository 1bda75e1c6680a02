"""Notes on plugins that loaded well: whose they are, when they are void, what a folder that takes none costs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pvops_core.backends.finding.found import Found
from pvops_core.backends.loading.proven import MOST, Proven


@pytest.fixture
def plugin(tmp_path: Path) -> Found:
    file = tmp_path / "mine.py"
    file.write_text("backend = None\n")
    return Found("mine", "a-mine", "1.0", "mine:backend", file)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def note(environ: dict[str, str], *plugins: Found) -> None:
    notes = Proven.of(environ)
    for plugin in plugins:
        notes.add(plugin)
    notes.keep()


def test_a_note_holds_until_the_file_changes(plugin: Found, environ: dict[str, str]) -> None:
    note(environ, plugin)
    assert plugin in Proven.of(environ)
    assert plugin.file
    plugin.file.write_text("backend = 1 + 1\n")
    assert plugin not in Proven.of(environ)


def test_each_virtual_environment_has_its_own(
    plugin: Found, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    note(environ, plugin)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "prefix", "/another")
        assert plugin not in Proven.of(environ)
        note(environ, plugin)
    assert plugin in Proven.of(environ)


def test_what_another_process_wrote_meanwhile_stays(plugin: Found, environ: dict[str, str]) -> None:
    other = Found("other", "an-other", "1.0", "mine:backend", plugin.file)
    first, second = Proven.of(environ), Proven.of(environ)
    first.add(plugin)
    second.add(other)
    first.keep()
    second.keep()
    assert plugin in Proven.of(environ)
    assert other in Proven.of(environ)


def test_the_oldest_go_first(plugin: Found, environ: dict[str, str]) -> None:
    many = [Found(f"b{number}", "a-mine", "1.0", "mine:backend", plugin.file) for number in range(MOST)]
    note(environ, plugin)
    note(environ, *many)
    notes = Proven.of(environ)
    assert plugin not in notes
    assert all(each in notes for each in many)


def test_a_write_that_fails_leaves_nothing_behind(
    plugin: Found, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: str, encoding: str) -> int:
        self.write_bytes(data.encode(encoding)[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    note(environ, plugin)
    assert not list(Path(environ["XDG_CACHE_HOME"], "pvops").iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "[" * 100_000])
def test_damaged_notes_are_none(plugin: Found, environ: dict[str, str], text: str) -> None:
    note(environ, plugin)
    Path(environ["XDG_CACHE_HOME"], "pvops", "plugins.json").write_text(text)
    assert plugin not in Proven.of(environ)
