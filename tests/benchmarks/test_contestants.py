"""By what the benchmark of boots knows that a machine was switched off."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.boots.contestants import LAST_WORDS, Booted, Contestant, pvops
from pvops_core.cli.output.summary import summary
from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation, Outcome

BOOT = Booted(Path("vmlinuz"), Path("initrd"), 256)


@pytest.mark.parametrize(("outcome", "finished"), [("poweroff", True), ("crash", False), ("timeout", False)])
def test_of_ours_the_outcome_counts_and_not_the_kernels_last_words(outcome: str, *, finished: bool) -> None:
    observation = Observation(Cell("xen", "", MachineKind.X86_64), Outcome(outcome), reason="asked for by the guest")
    lines = "\n".join(["[    1.0] reboot: Power down", *summary(observation)])
    assert pvops(BOOT, "xen").finished(lines) == finished
    assert not pvops(BOOT, "xen").finished("[    1.0] reboot: Power down")


@pytest.mark.parametrize(
    ("line", "finished"),
    [
        ("reboot: Power down", True),
        ("[    2.125000] reboot: Power down\r", True),
        ("[   12.125000] reboot: System halted", True),
        ("[    2.125000] echo reboot: Power down", False),
        ("", False),
    ],
)
def test_of_qemu_the_kernels_last_words_count(line: str, *, finished: bool) -> None:
    assert Contestant(["qemu"], LAST_WORDS).finished(f"first\r\n{line}\n") == finished
