"""The late write_cr3 in a real kernel, before its struct pages, and kernels that it cannot be shown on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from pvops_core.backends import load_backends
from pvops_core.errors import UsageError
from pvops_core.guests import Kernel, read_kernel
from pvops_core.machine import Stop
from pvops_core.scenarios import SCENARIOS, Role, perform
from pvops_core.scenarios.kernels.early_cr3 import VMEMMAP, late_from_the_start
from pvops_core.scenarios.kernels.run import KernelRun, came_to_its_end
from pvops_core.scenarios.kernels.stage import KernelStage
from pvops_core.scenarios.witness import Fault

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
ROOT = 0x2A10000


@pytest.mark.kernel
@pytest.mark.slow
def test_a_kernel_dies_of_the_late_one_and_lives_by_its_own(kernel_path: Callable[[str], Path]) -> None:
    stage = KernelStage(load_backends().backends, read_kernel(kernel_path(CLOUD)))
    performance = perform(SCENARIOS["early-cr3"], stage)
    assert performance.honest, [(act.title, check.claim) for act in performance.acts for check in act.checks]
    assert performance.guest["release"] == "6.1.0-56-cloud-amd64"
    old, fixed = performance.acts
    page = VMEMMAP + (int(str(old.facts["root"]), 0) >> 12) * 64
    assert int(str(old.facts["fault_address"]), 0) == page + 0x28
    assert old.ending.startswith("crash: PANIC: early exception 0x0e")
    assert fixed.ending == "the kernel looks for a root file system"


def test_a_kernel_of_another_age_is_refused(small: Kernel) -> None:
    stage = KernelStage(load_backends().backends, small)
    with pytest.raises(UsageError, match="has no xen_write_cr3_init; this scenario needs one of x86_64 with XEN_PV"):
        perform(SCENARIOS["early-cr3"], stage)
    with pytest.raises(UsageError, match="is played on the built-in guest alone"):
        perform(SCENARIOS["livepatch-timeout"], stage)


def test_another_death_is_not_the_one_of_history(small: Kernel) -> None:
    died = run(small)
    assert late_from_the_start(died, ROOT).role is Role.OLD
    assert not late_from_the_start(died, ROOT).held, "it did not fault in xen_write_cr3"
    assert not late_from_the_start(attrs.evolve(died, faults=()), ROOT).held


def run(kernel: Kernel, console: str = "") -> KernelRun:
    fault = Fault(14, 4, 0x1000000, VMEMMAP + (ROOT >> 12) * 64 + 0x28, None, 5)
    return KernelRun(
        guest=kernel, backend="xen", cmdline="", stop=Stop("crash", "why"), done=False, console=console,
        faults=(fault,), events=(), history=(), rip=0, text=(), gates={}, messages=(), passed={}, sites=(),
    )  # fmt: skip


def test_how_a_kernel_ended(small: Kernel) -> None:
    panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    assert came_to_its_end(small, panic, "crash", {})
    assert run(small, panic).words == ""
    other = run(small, "[    0.1] BUG: unable to handle page fault for address: 0\nKernel panic - not syncing\n")
    assert other.ending == "crash: BUG: unable to handle page fault for address: 0"
    assert run(small).ending == "crash: why"
    with_root = attrs.evolve(small, initrd=b"cpio")
    assert not came_to_its_end(with_root, panic, "crash", {})
    assert not came_to_its_end(with_root, "", "poweroff", {})
    assert came_to_its_end(with_root, "", "poweroff", {"power-off": 1})
    assert attrs.evolve(run(with_root, panic)).words == panic
