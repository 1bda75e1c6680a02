"""``--workload`` on a small kernel that makes the marks and prints the lines of the program itself."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main
from pvops_core.machine.cpu.model.cpuid import MARK
from pvops_core.testing.images import ElfBuilder

POWER_OFF = bytes.fromhex("66ba0406 66b80020 66ef f4")
FAIR = "guest: workload fork: ok, rounds 4, value 10\n"


def mark(number: int) -> bytes:
    return b"\xb8" + struct.pack("<I", MARK) + b"\xb9" + struct.pack("<I", number) + b"\x0f\xa2"


def say(text: str) -> bytes:
    return bytes.fromhex("66baf803") + b"".join(b"\xb0" + bytes([byte]) + b"\xee" for byte in text.encode())


def kernel_of(folder: Path, code: bytes) -> Path:
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", code))
    path = folder / "vmlinux"
    path.write_bytes(builder.build())
    return path


def made(tmp_path: Path, code: bytes, *arguments: str, workload: str = "fork:4") -> tuple[int, dict[str, Any]]:
    target = tmp_path / "out.json"
    words = ["--kernel", str(kernel_of(tmp_path, code)), "--backends", "native", "--memory", "32"]
    status = main(["compare", *words, "--workload", workload, "--json", str(target), *arguments])
    document: dict[str, Any] = json.loads(target.read_text())
    return status, document


def test_what_is_between_the_marks_is_counted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly: of all that the kernel does 18 instructions, 4 of them port accesses, and those of the second mark."""
    between = bytes.fromhex("b904000000 ffc9 75fc") + say("***\n")
    status, document = made(
        tmp_path, mark(0) + between + mark(1) + say(FAIR) + POWER_OFF, "--instructions", "--html", str(tmp_path / "p")
    )
    assert status == 0
    (cell,) = document["cells"]
    found = cell["rounds"]["fork"]
    assert (found["rounds"], found["value"]) == (4, 10)
    total = found["total"]
    assert total["counts"]["machine"] == {"port_writes": 4}
    assert total["instructions"] == 1 + 2 * 4 + 1 + 2 * 4 + 3  # up to the cpuid of the mark behind
    assert total["counts"]["traps"] == {}
    assert document["groups"][0]["workloads"] == "fork:4"
    assert "--workload fork:4" in document["command"]
    assert "a round of" in capsys.readouterr().out
    assert "What one round of a workload takes" in (tmp_path / "p").read_text()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (POWER_OFF, "the guest said nothing of it"),
        (mark(0) + mark(1) + say(FAIR.replace("4", "3")) + POWER_OFF, "3 rounds of 4"),
        (say(FAIR) + POWER_OFF, "no mark was made"),
        (mark(0) + mark(1) + say("guest: workload fork: failed: fork failed\n") + POWER_OFF, "failed: fork failed"),
    ],
)
def test_a_guest_that_did_not_do_it_has_crashed(tmp_path: Path, code: bytes, said: str) -> None:
    status, document = made(tmp_path, code)
    assert status == 6
    assert document["cells"][0]["outcome"] == "crash"
    assert said in document["cells"][0]["reason"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "--workload", "fork"], "--workload goes with --kernel only"),
        (["compare", "--cpus", "1,2", "--workload", "fork"], "--workload goes with --kernel only"),
        (["compare", "--kernel", "KERNEL", "--workload", "frok"], "did you mean fork?"),
        (["boot", "KERNEL", "--workload", "fork:0"], "1 to 1,000,000 rounds"),
        (["boot", "KERNEL", "--workload", "fork", "--cmdline", "rdinit=/bin/sh"], "leave rdinit=/bin/sh out"),
        (["boot", "KERNEL", "--workload", "fork", "--stop-at", "1ms", "--save", "s"], "--workload goes without --save"),
        (["boot", "KERNEL", "KERNEL", "--workload", "fork"], "workload"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    kernel = str(kernel_of(tmp_path, POWER_OFF))
    assert main([kernel if word == "KERNEL" else word for word in words]) == 2
    assert said in capsys.readouterr().err


def test_a_boot_of_one_tells_of_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = kernel_of(tmp_path, mark(0) + say("*\n") + mark(1) + say(FAIR) + POWER_OFF)
    target = tmp_path / "boot.json"
    assert main(["boot", str(kernel), "--memory", "32", "--workload", "fork:4", "--json", str(target)]) == 0
    assert json.loads(target.read_text())["rounds"]["fork"]["rounds"] == 4
    assert "a round of fork" in capsys.readouterr().out
