"""Machine code of our own: what is kept does what was written, and what is damaged or another's is made again."""

from __future__ import annotations

import ast
import ctypes
import enum
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import HostError, MachineError
from pvops_core.machine.unicorn import libc
from pvops_core.machine.unicorn.llvm import emit, routines
from pvops_core.machine.unicorn.llvm.routines import I32, I64, Source, addresses_of

if TYPE_CHECKING:
    from pvops_core.machine.unicorn.llvm.emit import Routine


class Word(enum.IntEnum):
    SUM = 0
    LAST = 1


def _add(at: Routine) -> None:
    at.put(Word.SUM, at.add(at.get(Word.SUM), at.arguments[0]))
    at.leave("note", at.arguments[0])


def _note(at: Routine) -> None:
    at.put(Word.LAST, at.arguments[0])
    at.done()


def _answer(at: Routine) -> None:
    at.done(I32(42))


SOURCES = {"add": Source(_add, (I64,)), "note": Source(_note, (I64,)), "answer": Source(_answer, (), I32)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pvops" / "code"


def _does_its_work(addresses: dict[str, int]) -> bool:
    words = (ctypes.c_int64 * 2)(5, 0)
    at = ctypes.addressof(words)
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(addresses["add"])(7, at)
    answer = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(addresses["answer"])(at)
    return (list(words), answer) == ([12, 7], 42)


def test_code_is_made_once_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _does_its_work(addresses_of("some", SOURCES))
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(emit, "compiled", None)
    assert _does_its_work(addresses_of("some", SOURCES))


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:0], lambda data: data[:-1], lambda data: data[:-1] + b"\xcc", lambda data: data + b"\xcc"],
)
def test_damaged_code_is_never_executed(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    addresses_of("some", SOURCES)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert _does_its_work(addresses_of("some", SOURCES))
    assert file.read_bytes() == whole


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_could_write_is_not_used(cache: Path, mode: int) -> None:
    addresses_of("some", SOURCES)
    (file,) = cache.iterdir()
    file.chmod(mode)
    assert _does_its_work(addresses_of("some", SOURCES))
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("places", [{"add": 0}, {"add": 0, "note": 0, "answer": 1 << 40}, {"add": "x"}, [1]])
def test_places_that_are_none_are_made_again(places: object, cache: Path) -> None:
    addresses_of("some", SOURCES)
    (file,) = cache.iterdir()
    name = file.name.rpartition("-")[0]
    routines._KEPT.write(name, routines.msgspec.msgpack.encode(places), b"\xcc" * 64)
    assert _does_its_work(addresses_of("some", SOURCES))


def test_another_llvm_has_code_of_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses_of("some", SOURCES)
    monkeypatch.setattr(routines, "version", lambda _name: "0.1")
    addresses_of("some", SOURCES)
    assert len(list(cache.iterdir())) == 2


def test_without_a_place_to_keep_it_code_is_made(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("no folder")
    assert _does_its_work(addresses_of("some", SOURCES))


def test_a_host_that_does_not_execute_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_name: str) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "memfd_create", refused)
    with pytest.raises(HostError, match="execute machine code of its own: Permission denied"):
        addresses_of("some", SOURCES)


def test_code_that_no_address_can_be_found_for_is_told() -> None:
    with pytest.raises(HostError, match="Invalid argument"):
        libc.map_code(b"")


def test_code_that_needs_something_else_is_refused() -> None:
    module = emit.ir.Module()
    kind = emit.ir.FunctionType(emit.ir.VoidType(), [])
    outside = emit.ir.Function(module, kind, name="outside")
    builder = emit.ir.IRBuilder(emit.ir.Function(module, kind, name="inside").append_basic_block())
    builder.call(outside, [])
    builder.ret_void()
    with pytest.raises(MachineError, match="stand by itself"):
        emit.assembled(module)


def test_what_is_kept_is_of_all_sources_that_it_is_made_of() -> None:
    """A module that writes functions has its constants from this folder, or from what else the key is made of."""
    folder = Path(routines.__file__).parent
    makers = {f"pvops_core.{each.replace('/', '.')}" for each in routines._MAKERS}
    no_constants = {"pvops_core.errors", "pvops_core.kinds"}
    for file in folder.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        if "Source(" not in text and "assembled(" not in text:
            continue
        tree = ast.parse(text)
        plain = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
        packages = {"pvops_core.machine.unicorn", "pvops_core.machine.unicorn.llvm"}
        used = {node.module for node in plain if node.module.startswith("pvops_core")} - packages
        assert used <= makers | no_constants, file
