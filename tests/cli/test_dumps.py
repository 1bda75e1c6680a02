"""``pvops boot --dump-at`` and ``--dump-on``: dumps while a kernel runs and at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from pvops_core.cli import main
from pvops_core.testing.images import ElfBuilder
from tests.session.conftest import BASE
from tests.session.selfpatching import POWER_OFF

CALL_PANIC = bytes.fromhex("bc00002001 e811000000")
"""A stack at 0x1200000, and a call of what is 32 bytes behind the beginning of the text."""
SYMBOLS = {"_text": BASE, "_end": BASE + 0x1000, "panic": BASE + 27, "init_top_pgt": BASE}


def image(path: Path, code: bytes, bits: int = 64) -> str:
    builder = ElfBuilder(bits, BASE)
    builder.text(".text", code.ljust(27, b"\x90") + b"\xc3".ljust(0x100, b"\xcc"))
    for name, address in SYMBOLS.items():
        builder.symbol(name, address)
    path.write_bytes(builder.build())
    return str(path)


@pytest.fixture
def panicking(tmp_path: Path) -> str:
    """A kernel that comes by its panic function and switches the machine off."""
    return image(tmp_path / "panicking", CALL_PANIC + POWER_OFF)


def document(folder: Path, *words: str, code: int = 0) -> dict[str, Any]:
    target = folder / "boot.json"
    assert main(["boot", *words, "--memory", "32", "--json", str(target)]) == code
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def is_core(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(ELFFile(file)["e_type"] == "ET_CORE")


def test_dumps_are_made_and_the_run_is_as_without(panicking: str, tmp_path: Path) -> None:
    plain = document(tmp_path, panicking)
    at, on = tmp_path / "at", tmp_path / "on"
    found = document(tmp_path, panicking, "--dump-at", "panic", str(at), "--dump-on", "poweroff", str(on))
    assert is_core(at)
    assert is_core(on)
    for field in ("outcome", "virtual_ns", "event_log_sha256", "text_sha256"):
        assert found[field] == plain[field]
    first, second = found["dumps"]
    assert (first["place"], first["made"], first["own_info"]) == ("panic", True, False)
    assert (second["outcome"], second["file"]) == ("poweroff", str(on))
    assert first["virtual_ns"] < second["virtual_ns"] == found["virtual_ns"]


def test_a_panic_is_a_crash_however_the_kernel_ends(
    panicking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = tmp_path / "core"
    assert main(["boot", panicking, "--memory", "32", "--dump-on", "crash", str(core)]) == 0
    assert f"dump                {core}, at 0.00" in capsys.readouterr().out
    assert is_core(core)


def test_a_crash_without_a_panic_is_one_too(tmp_path: Path) -> None:
    dead = image(tmp_path / "dead", b"\x0f\x0b")  # ud2, and nobody who takes it
    found = document(tmp_path, dead, "--dump-on", "crash", str(tmp_path / "core"), code=6)
    assert found["outcome"] == "crash"
    assert is_core(tmp_path / "core")


def test_another_end_makes_none(panicking: str, tmp_path: Path) -> None:
    found = document(tmp_path, panicking, "--dump-on", "timeout", str(tmp_path / "core"))
    assert not found["dumps"][0]["made"]
    assert not (tmp_path / "core").exists()


def test_a_place_that_is_not_met_is_told(panicking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", panicking, "--memory", "32", "--dump-at", "10s", str(tmp_path / "core")]) == 2
    assert "dump not made" in capsys.readouterr().out


def test_one_that_cannot_be_written_is_told_and_the_run_goes_on(
    panicking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(tmp_path, panicking, "--dump-on", "poweroff", "/dev/null", code=4)
    assert found["outcome"] == "poweroff"
    assert "no regular file" in found["dumps"][0]["refused"]
    assert "dump refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--dump-at", "nowhere", "core"], "nowhere"),
        (["--dump-at", "panic"], "requires 2 arguments"),
        (["--dump-on", "sunday", "core"], "no end of a run 'sunday'"),
        (["--dump-on", "crash", "nowhere/core"], "its folder does not exist"),
    ],
)
def test_what_cannot_be_is_refused_before_the_boot(
    panicking: str, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["boot", panicking, "--memory", "32", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_32_bit_kernel_is_refused_before_it_boots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = image(tmp_path / "small", CALL_PANIC + POWER_OFF, 32)
    assert main(["boot", small, "--memory", "32", "--dump-on", "crash", str(tmp_path / "core")]) == 2
    assert "32-bit kernel" in capsys.readouterr().err


def test_several_kernels_have_no_one_dump(panicking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", panicking, panicking, "--dump-on", "crash", str(tmp_path / "core")]) == 2
    assert "--dump-on" in capsys.readouterr().err
