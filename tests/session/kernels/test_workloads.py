"""Debian's kernels with the program that makes rounds as their first process: its results, and what a round takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main
from pvops_core.runs.workloads import WORKLOADS

CLOUD, PAE = "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.1.0-50-686-pae"
ROUNDS = 20


def compared(kernel: Path, target: Path, backends: str, *options: str) -> dict[str, Any]:
    """The document of a comparison in which each workload makes so many rounds."""
    workloads = ",".join(f"{name}:{ROUNDS}" for name in WORKLOADS)
    words = ["--kernel", str(kernel), "--backends", backends, "--workload", workloads, "--json", str(target)]
    assert main(["compare", *words, "--max-seconds", "600", *options]) == 0
    result: dict[str, Any] = json.loads(target.read_text())
    return result


def values(cpus: int) -> dict[str, int]:
    """What the rounds come to."""
    sums = sum(range(1, ROUNDS + 1))
    by_name = {"fork": sums, "exec": sums, "switch": sums + ROUNDS, "mmap": 16 * ROUNDS, "fault": 16 * ROUNDS}
    threads = {"futex": max(2, cpus) * ROUNDS, "spin": cpus * ROUNDS}
    return dict.fromkeys(WORKLOADS, ROUNDS) | by_name | threads


@pytest.mark.kernel
@pytest.mark.slow
def test_all_workloads_on_bare_metal_and_xen_with_two_processors(
    kernel_path: Callable[[str], Path], tmp_path: Path
) -> None:
    """All counters are of the rounds alone: what one takes is known from how the kernel works."""
    document = compared(kernel_path(CLOUD), tmp_path / "c.json", "native,xen", "--cpus", "2", "--ops", "write_cr3")
    assert document["equal"], document["groups"][0]["differences"]
    native, xen = (cell["rounds"] for cell in document["cells"])
    for found in (native, xen):
        assert {name: each["value"] for name, each in found.items()} == values(2)
        assert {each["rounds"] for each in found.values()} == {ROUNDS}
    counts = {name: each["total"]["counts"] for name, each in native.items()}
    # One system call a round, and nothing else: no fault, no other call.
    assert counts["syscall"]["machine"]["syscalls"] == ROUNDS
    assert counts["syscall"]["traps"] == {"syscall": ROUNDS}
    assert counts["signal"]["traps"]["syscall"] == 3 * ROUNDS  # getpid, tgkill, rt_sigreturn
    assert counts["mmap"]["traps"]["syscall"] == 8 * ROUNDS
    assert counts["fault"]["traps"] == {"#PF": 2 * 16 * ROUNDS, "syscall": ROUNDS}
    # To the other process and back: two changes of address space, each a write of CR3 in the kernel's switch_mm.
    assert counts["switch"]["ops"]["write_cr3"] >= 2 * ROUNDS
    assert "write_cr3" not in counts["syscall"]["ops"]
    for name in ("fork", "exec", "mmap", "fault"):
        of_xen = xen[name]["total"]["counts"]
        assert not counts[name]["hypercalls"]
        assert sum(of_xen["hypercalls"].values()) > ROUNDS
        assert of_xen["page_table_updates"] > ROUNDS


@pytest.mark.kernel
@pytest.mark.slow
def test_all_workloads_in_32_bits(kernel_path: Callable[[str], Path], tmp_path: Path) -> None:
    document = compared(kernel_path(PAE), tmp_path / "c.json", "native")
    (found,) = (cell["rounds"] for cell in document["cells"])
    assert {name: each["value"] for name, each in found.items()} == values(1)
    assert found["syscall"]["total"]["counts"]["machine"]["software_interrupts"] == ROUNDS
