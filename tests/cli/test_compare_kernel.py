"""``pvops compare --kernel`` on small kernels: what it runs, and how a cell's bad end is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from pvops_core.cli import main
from pvops_core.ops import LAYOUTS
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.kernels import SmallKernel

POWER_OFF = "66ba0406 66b80020 66ef f4"
SAY_OK = "66baf803 b04f ee b04b ee b00a ee"
PLUGIN = """
from pvops_core.backends import API, Backend

backend = Backend(name="{name}", api=API, description="Native by another name.", base="native")
"""
Compare = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def kernel(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a kernel of instructions in hex."""

    def write(code: str) -> Path:
        builder = ElfBuilder(64, 0x1000000)
        builder.symbol("start", builder.text(".text", bytes.fromhex(code)))
        path = tmp_path / "vmlinux"
        path.write_bytes(builder.build())
        return path

    return write


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Compares a kernel on native, which stands twice under two names; the exit code and the document."""
    plugin = tmp_path / "twin.py"
    plugin.write_text(PLUGIN.format(name="twin"))

    def run(path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
        target = tmp_path / "out.json"
        given = ["--kernel", str(path), "--memory", "32", "--json", str(target), "--plugin", str(plugin)]
        code = main(["compare", *given, *arguments])
        document: dict[str, Any] = json.loads(target.read_text())
        return code, document

    return run


def test_each_platform_is_told_of_its_console_and_boots(
    kernel: Callable[[str], Path], compare: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = compare(kernel(SAY_OK + POWER_OFF), "--backends", "native,twin", "--cmdline", "quiet")
    assert code == 0
    assert [(cell["backend"], cell["outcome"], cell["console"]) for cell in document["cells"]] == [
        ("native", "poweroff", "OK\n"),
        ("twin", "poweroff", "OK\n"),
    ]
    assert {cell["console_name"] for cell in document["cells"]} == {"ttyS0"}
    (group,) = document["groups"]
    assert group["workload"] == "quiet"
    (boot,) = group["boots"]
    assert (boot["sites"], boot["console"], boot["console_alike"]) == (0, [], 2)
    printed = capsys.readouterr().out
    assert "Call sites of twin: the kernel annotates no call of an op" in printed
    assert "2 boots came to an end: poweroff." in printed
    assert document["command"].startswith("pvops compare --backends native,twin --kernel ")


def test_backends_that_cannot_boot_it_are_left_out(kernel: Callable[[str], Path], compare: Compare) -> None:
    code, document = compare(kernel(POWER_OFF), "--backends", "native,lguest,xen")
    assert code == 0
    assert [cell["backend"] for cell in document["cells"]] == ["native"]
    reasons = {skipped["backend"]: skipped["reason"] for skipped in document["skipped"]}
    assert reasons["lguest"] == "backend 'lguest' is no x86_64 machine; it can be i386, pae"
    assert "no Xen notes" in reasons["xen"] or "note" in reasons["xen"]


def test_a_boot_that_hangs_is_told_where_and_the_others_count(
    kernel: Callable[[str], Path], compare: Compare, enough: Callable[[int], float]
) -> None:
    limit = str(enough(40))
    code, document = compare(kernel(f"{SAY_OK} fa ebfe"), "--backends", "native,twin", "--max-seconds", limit)
    assert code == 6
    for cell in document["cells"]:
        assert cell["outcome"] == "timeout"
        assert "vcpu 0 at start+0x" in cell["reason"]
        assert cell["console"] == "OK\n"


def test_instructions_are_counted_when_asked_for(kernel: Callable[[str], Path], compare: Compare) -> None:
    path = kernel("b910000000 ffc9 75fc" + POWER_OFF)  # 16 times dec and jnz
    _, document = compare(path, "--backends", "native", "--instructions")
    assert document["cells"][0]["instructions"] == 1 + 2 * 16 + 4  # out cannot end its block: hlt too
    _, document = compare(path, "--backends", "native")
    assert document["cells"][0]["instructions"] == 0


def test_calls_of_ops_cannot_be_counted_where_there_are_none(kernel: Callable[[str], Path], compare: Compare) -> None:
    code, document = compare(kernel(POWER_OFF), "--backends", "native", "--ops", "save_fl")
    assert code == 3
    (skipped,) = document["skipped"]
    assert "no table of ops is known in it: .parainstructions: is not there" in skipped["reason"]


@pytest.fixture
def unheard(tmp_path: Path) -> Path:
    """A kernel with an op that no layout of the catalogue has: its own types alone know of it."""
    known = LAYOUTS["7.2-64"]
    op = attrs.evolve(known.by_path("cpu.cpuid").op, name="brand_new")
    slots = [
        attrs.evolve(slot, path="cpu.brand_new", op=op) if slot.path == "cpu.cpuid" else slot for slot in known.slots
    ]
    layout = attrs.evolve(known, slots=tuple(slots))
    path = tmp_path / "vmlinux"
    path.write_bytes(SmallKernel(layout, types=range(len(slots)), typed=True).builder().build())
    return path


def test_an_op_that_only_the_kernels_types_know_is_compared(unheard: Path, compare: Compare) -> None:
    _, document = compare(unheard, "--backends", "native,twin", "--ops", "cpu.brand_*", "--max-seconds", "20")
    (boot,) = document["groups"][0]["boots"]
    assert boot["sites_by_op"] == {"brand_new": {"sites": 1, "differing": 0}}


def test_an_op_that_the_kernel_lacks_is_refused_before_it_boots(
    unheard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--kernel", str(unheard), "--ops", "brand_new,cpuid"]) == 2
    assert "no op 'cpuid'; there are alloc_ldt" in capsys.readouterr().err
