"""``pvops initrd``: the file, what is told of it, and how it ends where none can be made."""

from __future__ import annotations

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from pvops_core import cli
from pvops_core.guests.linux.initrd import busybox as finding
from tests.programs import program


@pytest.fixture
def busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only one that there is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "busybox"
    file.write_bytes(program())
    monkeypatch.setattr(finding, "_FOLDERS", (str(folder),))
    monkeypatch.setenv("PATH", "")
    return file


def test_a_ramdisk_and_what_is_told_of_it(busybox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "initrd.gz"
    assert cli.main(["initrd", "-o", str(made), "--add", f"{busybox}:/opt/", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "pvops.initrd/1"
    assert told["sha256"] == sha256(made.read_bytes()).hexdigest()
    assert (told["initrd"], told["bytes"], told["busybox"]) == (str(made), made.stat().st_size, str(busybox))
    assert told["files"][-1] == {"path": "/opt/busybox", "mode": 0o100644, "bytes": len(program())}


def test_the_same_again(busybox: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(["initrd", "-o", str(first)]) == 0
    assert cli.main(["initrd", "-o", str(second), "--shell", "--busybox", str(busybox)]) == 0
    assert first.read_bytes() == second.read_bytes()
    out = capsys.readouterr().out
    assert out.startswith(f"{first}: {first.stat().st_size:,} bytes for x86_64 kernels, with {busybox}\n")


@pytest.mark.usefixtures("busybox")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch", "i386"], "there is no static busybox for i386 here"),
        (["--busybox", "/none"], "/none: cannot be read"),
        (["--init", "/"], "/: is a folder"),
        (["--add", "/none:/none"], "/none: cannot be read"),
        (["--add", "none"], "say HOST:GUEST"),
        (["--arch", "arm"], "arm"),
    ],
)
def test_where_none_can_be_made_there_is_no_file(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "initrd.gz"
    assert cli.main(["initrd", "-o", str(made), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not made.exists()


@pytest.mark.parametrize("option", ["--busybox", "--init", "--add"])
def test_what_goes_in_is_not_written_over(busybox: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = f"{busybox}:/bin/" if option == "--add" else str(busybox)
    assert cli.main(["initrd", "-o", str(busybox), option, given]) == 2
    assert "is one of the files that go into it" in capsys.readouterr().err
    assert busybox.read_bytes() == program()


def test_nor_is_the_busybox_that_was_found(busybox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["initrd", "-o", str(busybox)]) == 2
    assert "is one of the files that go into it" in capsys.readouterr().err


@pytest.mark.usefixtures("busybox")
@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_the_tool_of_the_format_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "initrd.gz"
    assert cli.main(["initrd", "-o", str(made)]) == 0
    monkeypatch.undo()
    unpacked = subprocess.run(["gzip", "-dc", str(made)], capture_output=True, check=True).stdout
    listed = subprocess.run(["cpio", "-itvn"], input=unpacked, capture_output=True, check=True).stdout.decode()
    lines = [line.split() for line in listed.splitlines()]
    assert all(line[2:4] == ["0", "0"] for line in lines)
    assert "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console" in [" ".join(line) for line in lines]
