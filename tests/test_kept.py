"""What is kept on disk between runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pvops_core.images import keptsymbols, load
from pvops_core.kept import Kept

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, for things of any size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(load, "WORTH", 1)
    monkeypatch.setattr(keptsymbols, "WORTH", 1)
    return tmp_path / "pvops"


def test_other_sources_have_things_of_their_own() -> None:
    Kept("things", ("kept",), 4).write("name", b"front", b"body")
    assert Kept("things", ("kept",), 4).read("name") == (b"front", b"body")
    assert Kept("things", ("patching/members",), 4).read("name") is None
    assert Kept("things", ("kept",), 4).read("other") is None


def test_those_used_longest_ago_go(cache: Path) -> None:
    things = Kept("things", ("kept",), 2)
    for number in range(4):
        things.write(str(number), b"", b"body")
        for file in (cache / "things").glob(f"{number}-*"):
            os.utime(file, (number, number))
    assert [things.read(str(number)) is not None for number in range(4)] == [False, False, True, True]


@pytest.mark.parametrize("environ", [{}, {"HOME": "not/absolute"}])
def test_without_a_folder_nothing_is_kept(environ: dict[str, str]) -> None:
    things = Kept("things", ("kept",), 2, environ)
    things.write("name", b"", b"")
    assert things.read("name") is None


def test_what_is_aligned_is_read_where_it_lies(cache: Path) -> None:
    things = Kept("things", ("kept",), 2)
    things.write("name", b"front", b"body" * 3000, aligned=True)
    found = things.map("name")
    assert found is not None
    front, body = found
    assert front.rstrip(b"\0") == b"front"
    assert body == b"body" * 3000
    (file,) = (cache / "things").iterdir()
    things.write("name", b"front", b"another", aligned=True)
    assert body[:4] == b"body"  # who writes anew takes nothing away
    for damaged in (file.read_bytes()[:-1], b"", file.read_bytes()[:4096]):
        file.write_bytes(damaged)
        assert things.map("name") is None


def test_what_is_not_aligned_is_not_mapped() -> None:
    things = Kept("things", ("kept",), 2)
    things.write("name", b"front", b"body")
    assert things.map("name") is None
    assert things.map("other") is None


def test_kernels_of_another_form_are_others() -> None:
    """Another pvops, to which this one's file would be damaged in part, has files of its own."""
    assert "images/load" in load._KEPT.makers
    assert "images/keptsymbols" in keptsymbols._KEPT.makers
