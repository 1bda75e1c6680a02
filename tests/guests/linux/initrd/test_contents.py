"""What lies in a ramdisk, that equal files make equal bytes, and what no kernel would start."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

import pytest

from pvops_core.errors import ImageError, UsageError
from pvops_core.guests.linux.initrd.busybox import Busybox
from pvops_core.guests.linux.initrd.contents import (
    contents,
    packed,
    read_added,
    read_regular,
    resize_program,
    shell_init,
)
from pvops_core.images.cpio import Entry
from tests.programs import program
from tests.ramdisk import entries

BUSYBOX = Busybox("/bin/busybox", program())


def inside(data: bytes) -> dict[str, tuple[int, bytes]]:
    return {name: (fields[1], body) for name, fields, body in entries(gzip.decompress(data))}


def test_a_shell_by_default() -> None:
    found = inside(packed(contents(BUSYBOX)))
    assert found["init"] == (stat.S_IFREG | 0o755, shell_init())
    assert found["bin/busybox"] == (stat.S_IFREG | 0o755, BUSYBOX.data)
    assert found["bin/resize"] == (stat.S_IFREG | 0o755, resize_program())
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["dev/console"][0] == stat.S_IFCHR | 0o600
    assert {"proc", "sys", "dev", "tmp"} <= {name for name, (mode, _) in found.items() if stat.S_ISDIR(mode)}
    assert "script" not in found


def test_a_script_alone_or_before_the_shell() -> None:
    script = b"#!/bin/sh\necho hello\n"
    assert inside(packed(contents(BUSYBOX, init=script)))["init"][1] == script
    both = inside(packed(contents(BUSYBOX, init=script, shell=True)))
    assert both["init"][1] == shell_init()
    assert both["script"] == (stat.S_IFREG | 0o755, script)


def test_equal_files_make_equal_bytes(tmp_path: Path) -> None:
    """Whatever their times, owners and order."""
    files = [tmp_path / "one", tmp_path / "two"]
    for number, file in enumerate(files):
        file.write_bytes(b"the same")
        os.utime(file, (number, number))
    made = packed(contents(BUSYBOX, tuple(read_added(f"{file}:/etc/{file.name}") for file in files)))
    os.utime(files[0], (9, 9))
    assert made == packed(contents(BUSYBOX, tuple(read_added(f"{file}:/etc/{file.name}") for file in files[::-1])))
    assert made[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"


@pytest.mark.parametrize(("guest", "name"), [("/lib/x:1/y", "lib/x:1/y"), ("/bin/", "bin/a:b"), ("/", "a:b")])
def test_a_file_that_is_added(tmp_path: Path, guest: str, name: str) -> None:
    file = tmp_path / "a:b"
    file.write_bytes(b"data")
    file.chmod(0o640)
    assert read_added(f"{file}:{guest}") == Entry.file(name, b"data", 0o644)
    file.chmod(0o700)
    assert read_added(f"{file}:{guest}").mode == stat.S_IFREG | 0o755


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prog", "say HOST:GUEST"),
        ("prog:bin/prog", "say HOST:GUEST"),
        (":/bin/prog", "say HOST:GUEST"),
        ("prog:/bin//prog", "is no plain path"),
        ("prog:/../prog", "is no plain path"),
        ("prog:/./prog", "is no plain path"),
    ],
)
def test_what_cannot_be_added(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_added(text)
    assert str(caught.value).startswith(f"--add {text}: ")


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder: add its files one by one"):
        read_added(f"{tmp_path}:/etc/")
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        read_added(f"{tmp_path}/none:/etc/none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is not a regular file"):
        read_regular(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("init", "/init is there twice"),
        ("bin/sh/x", "/bin/sh/x lies in bin/sh, which is no folder"),
        ("a" * 5000, "longer than the 4095 bytes"),
    ],
)
def test_what_cannot_be_told_names_the_file(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        packed(contents(BUSYBOX, (Entry.file(name, b""),)))


@pytest.mark.parametrize(
    ("init", "said"),
    [
        (b"echo hello\n", "neither a script that begins with #! nor a program"),
        (b"", "neither a script"),
        (b"#!\n", "no absolute path"),
        (b"#! sh\n", "no absolute path"),
        (b"#!/bin/bash\n", "needs '/bin/bash', which is not in the ramdisk"),
        (b"#!/bin/sh\r\n", r"needs '/bin/sh\\r', which"),
        (program(linker="/lib64/ld.so"), "needs '/lib64/ld.so', which"),
    ],
)
@pytest.mark.parametrize("shell", [False, True])
def test_what_no_kernel_would_start_is_refused(init: bytes, said: str, *, shell: bool) -> None:
    with pytest.raises(UsageError, match=said):
        contents(BUSYBOX, init=init, shell=shell)


@pytest.mark.parametrize("init", [b"#! /bin/sh -x\n", b"#!\t/bin/busybox\tsh\n", b"#!/bin/sh", program()])
def test_what_one_would(init: bytes) -> None:
    assert inside(packed(contents(BUSYBOX, init=init)))["init"][1] == init


def test_an_interpreter_may_be_added() -> None:
    added = (Entry.file("lib64/ld.so", b"", 0o755),)
    assert contents(BUSYBOX, added, program(linker="/lib64/ld.so"))[0].data == program(linker="/lib64/ld.so")
