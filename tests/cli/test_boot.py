"""``pvops boot``: a small kernel that powers off, and all that can go wrong before one runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvops_core.cli import main
from pvops_core.images import machine_of
from pvops_core.testing.images import ElfBuilder, make_bzimage

SAY_OK_AND_OFF = "66baf803 b04f ee b04b ee 66ba0406 66b80020 66ef f4"


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", bytes.fromhex(SAY_OK_AND_OFF)))
    path = tmp_path / "vmlinuz"
    path.write_bytes(make_bzimage(builder.build()))
    return path


def test_a_boot_shows_its_console_and_says_how_it_ended(
    kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "boot.json"
    assert main(["boot", str(kernel), "--backend", "native", "--memory", "32", "--json", str(target)]) == 0
    assert capsys.readouterr().out.startswith("OK\n")
    document = json.loads(target.read_text())
    assert document["schema"] == "pvops.boot/1"
    assert (document["outcome"], document["console"], document["backend"]) == ("poweroff", "OK", "native")
    assert document["image"]["machine"] == "x86_64"
    assert document["virtual_ns"] > 0
    assert document["wall_s"] > 0
    for name in ("event_log_sha256", "text_sha256"):
        assert len(document[name]) == 64


@pytest.mark.parametrize(
    ("cpus", "said"), [(1, ""), (3, "CPUs                1 of 3 started: the guest left the others")]
)
def test_a_guest_that_starts_fewer_cpus_than_there_are_is_told(
    kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cpus: int, said: str
) -> None:
    target = tmp_path / "boot.json"
    assert main(["boot", str(kernel), "--memory", "32", "--cpus", str(cpus), "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert said in shown
    assert ("CPUs" in shown) == bool(said)
    document = json.loads(target.read_text())
    assert (document["vcpus"], document["vcpus_started"]) == (cpus, 1)


def test_it_ends_at_a_text(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", str(kernel), "--memory", "32", "--until", "O"]) == 0
    assert "outcome             until" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "lguest"], "backend 'lguest' is no x86_64 machine; it can be i386"),
        (["--backend", "vmi"], "no backend 'vmi'"),
        (["--initrd", "/nowhere"], "/nowhere: cannot be read"),
    ],
)
def test_wrong_usage_is_one_line(
    kernel: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["boot", str(kernel), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_is_no_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text"
    path.write_text("no kernel")
    assert main(["boot", str(path)]) == 2
    assert "neither a bzImage nor an ELF image" in capsys.readouterr().err


def test_the_machine_is_known_before_a_kernel_is_unpacked(kernel: Path, tmp_path: Path) -> None:
    data = bytearray(kernel.read_bytes())
    assert machine_of(kernel) == "x86_64"  # the header does not say, the kernel does
    data[0x236] |= 1
    kernel.write_bytes(data[:0x400])
    assert machine_of(kernel) == "x86_64"  # the header says it
    data[0x236] &= ~1
    data[0x206:0x208] = b"\x0b\x02"  # a protocol without the field: the kernel is looked into
    kernel.write_bytes(data)
    assert machine_of(kernel) == "x86_64"
    elf = tmp_path / "vmlinux"
    builder = ElfBuilder(32, 0xC1000000)
    builder.text(".text", b"\xf4")
    elf.write_bytes(builder.build())
    assert machine_of(elf) == "i386"


def test_a_broken_backend_is_a_failure_that_says_why(
    kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text("raise RuntimeError('no such luck')")
    for backend in ("broken", "native"):
        assert main(["boot", str(kernel), "--backend", backend, "--plugin", str(plugin)]) == 4
        assert "no such luck" in capsys.readouterr().err


def test_what_does_not_fit_is_wrong_usage(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", str(kernel), "--memory", "8"]) == 2
    assert "8 MiB of memory are not enough" in capsys.readouterr().err
    assert main(["boot", str(kernel), "--initrd", "/dev/zero"]) == 2
    assert "/dev/zero: is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_input_that_cannot_be_read_is_named(kernel: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", str(kernel), "--input", name]) == 2
    assert f"{name}: " in capsys.readouterr().err
