"""The host's busybox: which is taken, and what is said of those that will not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvops_core.errors import ImageError, UsageError
from pvops_core.guests.linux.initrd import busybox
from tests.programs import program


@pytest.fixture(autouse=True)
def _nothing_of_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busybox, "_FOLDERS", ())


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_the_first_that_will_do_is_taken(tmp_path: Path) -> None:
    put(tmp_path / "dynamic" / "busybox", program(linker="/lib64/ld-linux-x86-64.so.2"))
    put(tmp_path / "narrow" / "busybox", program(32))
    alpine = put(tmp_path / "alpine" / "busybox.static", program())
    put(tmp_path / "later" / "busybox", program())
    folders = {"PATH": ":".join(str(tmp_path / name) for name in ("none", "dynamic", "narrow", "alpine", "later"))}
    found = busybox.find_busybox("x86_64", folders)
    assert (found.path, found.data) == (str(alpine), program())
    assert busybox.find_busybox("i386", folders).path == str(tmp_path / "narrow" / "busybox")


def test_where_none_will_do_each_is_told_and_what_to_install(tmp_path: Path) -> None:
    dynamic = put(tmp_path / "dynamic" / "busybox", program(linker="/lib64/ld.so"))
    narrow = put(tmp_path / "narrow" / "busybox", program(32))
    (tmp_path / "again").symlink_to(narrow.parent)
    folders = {"PATH": f"{dynamic.parent}:{narrow.parent}:{tmp_path / 'again'}:"}
    with pytest.raises(UsageError, match="install the package busybox-static") as caught:
        busybox.find_busybox("x86_64", folders)
    there = f"({dynamic} is linked dynamically (by /lib64/ld.so), {narrow} is for i386)"
    assert there in str(caught.value)
    with pytest.raises(UsageError, match=r"^there is no static busybox for i386 here: unpack Debian's"):
        busybox.find_busybox("i386", {})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (program(32), "is for i386, not x86_64: install the package busybox-static"),
        (program(linker="/lib64/ld.so"), r"is linked dynamically \(by /lib64/ld.so\); a static one is needed: install"),
        (b"#!/bin/sh\n", "is no ELF file"),
    ],
)
def test_one_that_was_named_must_do(tmp_path: Path, data: bytes, said: str) -> None:
    file = put(tmp_path / "mine", data)
    with pytest.raises(ImageError, match=said) as caught:
        busybox.read_busybox(file, "x86_64")
    assert caught.value.path == str(file)


def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        busybox.read_busybox(tmp_path / "none", "x86_64")
