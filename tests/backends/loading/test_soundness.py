"""A backend that was found sound is not checked again while it and what it is made of stay as they are."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import API, Backend
from pvops_core.backends.finding.found import Found
from pvops_core.backends.loading import checking
from pvops_core.backends.loading.checking import check_backend
from pvops_core.errors import PluginError
from pvops_core.hookspecs import hookimpl
from pvops_core.patching.patchlets import Patchlet

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

FOUND = Found("mine", "pvops-mine", "1", f"{__name__}:backend")


class Based:
    """Made as ops are."""

    def __init__(self, env: object) -> None:
        """With the environment."""


class Good(Based):
    """One hook."""

    @hookimpl
    def save_fl(self, cpu: Vcpu) -> int:
        """Flags."""
        return cpu.rflags


SAVE_FL = Good.save_fl


def made(ops: type | None = Good, **other: object) -> Backend:
    """A backend of these ops."""
    return Backend(name="mine", api=API, ops=ops, **other)  # type: ignore[arg-type]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A cache folder of its own; who was looked at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen: list[str] = []
    real = checking._Check.hooks

    def hooks(check: checking._Check) -> None:
        seen.append(check.backend.name)
        real(check)

    monkeypatch.setattr(checking._Check, "hooks", hooks)
    return seen


def test_the_same_is_checked_once(looks: list[str]) -> None:
    for _ in range(3):
        check_backend(FOUND, made())
    assert looks == ["mine"]


def _without_cpu() -> type:
    class Good(Based):
        @hookimpl
        def save_fl(self, flags: int) -> int:
            return flags

    Good.__qualname__ = "Good"
    return Good


def _wrapped() -> type:
    class Good(Based):
        @hookimpl
        @functools.wraps(SAVE_FL)
        async def save_fl(self, cpu: Vcpu) -> int:
            return cpu.rflags

    return Good


def _another_options() -> type:
    class Good(Based):
        @hookimpl(wrapper=True)
        def save_fl(self, cpu: Vcpu):  # type: ignore[no-untyped-def]  # noqa: ANN202
            del cpu
            return (yield)

    return Good


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made(_without_cpu()), "'flags' is not one of the hook's"),
        (made(_another_options()), "wrappers have no place"),
        (made(nops=frozenset({"no_such_op"})), "name an op that does not exist"),
        (made(nops=frozenset({"save_fl"})), "its ops implement it"),
        (made(patchlets=(Patchlet("save_fl", "nop", "9c"),)), "save_fl"),
    ],
)
def test_what_is_made_another_way_is_checked_anew(looks: list[str], other: Backend, message: str) -> None:
    check_backend(FOUND, made())
    with pytest.raises(PluginError, match=message):
        check_backend(FOUND, other)
    with pytest.raises(PluginError, match=message):
        check_backend(FOUND, other)
    assert len(looks) == 3  # what is wrong is told each time


def test_other_functions_of_the_same_names_are_checked_anew(looks: list[str]) -> None:
    for ops in (Good, _wrapped(), Good):
        try:
            check_backend(FOUND, made(ops))
        except PluginError:
            looks.append("refused")
    assert looks == ["mine", "mine", "refused"]


def test_another_version_is_checked_anew(looks: list[str]) -> None:
    for version in ("1", "2", "1"):
        check_backend(Found("mine", "pvops-mine", version, FOUND.value), made())
    assert len(looks) == 2


def test_a_damaged_note_is_no_verdict(looks: list[str], tmp_path: Path) -> None:
    check_backend(FOUND, made())
    (note,) = (tmp_path / "pvops" / "verdicts").iterdir()
    note.write_bytes(note.read_bytes()[:-1] + b"x")
    check_backend(FOUND, made())
    assert len(looks) == 2


def test_without_sources_nothing_is_kept(looks: list[str], tmp_path: Path) -> None:
    ops = type("Good", (Good,), {"__module__": "no_such_module"})
    for _ in range(2):
        check_backend(FOUND, made(ops))
    assert len(looks) == 2
    assert not (tmp_path / "pvops").exists()
