"""``pvops symbols``: the file, what is told of it, and how it ends where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from pvops_core import cli
from tests.guest.debugfile.test_symbolfile import TEXT, kernel


@pytest.fixture
def vmlinux(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux"
    path.write_bytes(kernel().data)
    return path


def test_a_file_and_what_is_told_of_it(vmlinux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "symbols"
    assert cli.main(["symbols", str(vmlinux), "-o", str(made), "--offset", "0x1000000", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "pvops.symbols/1"
    assert told["sha256"] == sha256(made.read_bytes()).hexdigest()
    assert (told["file"], told["offset"], told["source"]) == (str(made), "0x1000000", ".symtab")
    assert (told["symbols"], told["functions"], told["frames"]) == (3, 2, 2)


def test_that_a_kernel_has_no_orc_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vmlinux").write_bytes(kernel(32, orc=False).data)
    assert cli.main(["symbols", str(tmp_path / "vmlinux"), "-o", str(tmp_path / "made")]) == 0
    assert capsys.readouterr().out.endswith("2 of functions; no frames, for the kernel has no ORC\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--offset", "far"], 2, "--offset takes a number of bytes"),
        (["--offset", "-0x1000000000000000000"], 2, "would leave the address space"),
        (["-o", "{vmlinux}"], 2, "is the kernel itself"),
        (["-o", "{vmlinux}/none"], 2, "none"),
    ],
)
def test_what_cannot_be(
    arguments: list[str], code: int, said: str, vmlinux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = vmlinux.read_bytes()
    given = [each.format(vmlinux=vmlinux) for each in arguments]
    assert cli.main(["symbols", str(vmlinux), "-o", str(tmp_path / "made"), *given]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert vmlinux.read_bytes() == before


def test_no_kernel_and_one_without_symbols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    assert cli.main(["symbols", str(tmp_path / "none"), "-o", str(made)]) == 2
    (tmp_path / "vmlinux").write_bytes(kernel(symbols=False).data)
    assert cli.main(["symbols", str(tmp_path / "vmlinux"), "-o", str(made)]) == 3
    assert "has no symbols" in capsys.readouterr().err
    assert not made.exists()


@pytest.mark.skipif(shutil.which("gdb") is None, reason="needs gdb")
@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_gdb_and_readelf_take_it(vmlinux: Path, tmp_path: Path) -> None:
    made = tmp_path / "symbols"
    assert cli.main(["symbols", str(vmlinux), "-o", str(made)]) == 0
    command = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", str(made)]
    asked = ["-ex", f"info symbol {TEXT + 0x12:#x}", "-ex", "info address first"]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        "second + 2 in section .text",
        f'Symbol "first" is at {TEXT:#x} in a file compiled without debugging.',
    ]
    read = ["readelf", "--wide", "--all", "--debug-dump=frames-interp", str(made)]
    done = subprocess.run(read, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    assert "rsp+8" in done.stdout


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "vmlinuz-6.1.0-56-cloud-amd64",
        "vmlinuz-6.1.0-56-amd64",
        "vmlinuz-6.12.117+deb12-cloud-amd64",
        "vmlinuz-7.2.13+deb14-cloud-amd64",
        "vmlinuz-6.1.0-50-686-pae",
    ],
)
def test_of_the_kernels_that_debian_ships(name: str, kernel_path: Callable[[str], Path], tmp_path: Path) -> None:
    made, told = tmp_path / "symbols", tmp_path / "json"
    assert cli.main(["symbols", str(kernel_path(name)), "-o", str(made), "--json", str(told)]) == 0
    result = json.loads(told.read_text())
    assert result["functions"] > 40_000
    assert (result["frames"] > 40_000) == (not name.endswith("686-pae"))
    if shutil.which("readelf") is not None:
        read = ["readelf", "--wide", "--debug-dump=frames", str(made)]
        done = subprocess.run(read, capture_output=True, text=True, check=True, timeout=300)
        assert done.stderr == ""
        assert done.stdout.count("FDE") == result["frames"]
