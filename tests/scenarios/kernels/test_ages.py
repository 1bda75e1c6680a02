"""Each scenario on kernels of its age, and what it says of those that are none."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import attrs
import pytest

from pvops_core.errors import UsageError
from pvops_core.images import load_image
from pvops_core.machine import Stop
from pvops_core.scenarios import SCENARIOS, Role, perform
from pvops_core.scenarios.kernels import pagetable_reserve, patch_in_place, patchlet_too_long
from pvops_core.scenarios.kernels.halves import POKES, function_of
from pvops_core.scenarios.kernels.pagetable_reserve import Buffer
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from pvops_core.patching.kernel import KernelPlan
    from pvops_core.scenarios.kernels.halves import TwoStages, Uninitialised
    from pvops_core.scenarios.kernels.patchlet_too_long import LongPatchOp
    from pvops_core.scenarios.kernels.run import KernelRun
    from pvops_core.scenarios.kernels.stage import KernelStage

PLAYED = ("patch-in-place", "pagetable-reserve", "early-cr3", "patchlet-too-long")


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYED)
def test_kernels_of_its_age_show_it(old_stages: list[KernelStage], name: str) -> None:
    played = 0
    for stage in old_stages:
        with suppress(UsageError):
            performance = perform(SCENARIOS[name], stage)
            played += 1
            wrong = [(act.title, check.claim) for act in performance.acts for check in act.checks if not check.held]
            assert performance.honest, (stage.guest["path"], wrong)
    assert played, "none of the kernels is of its age"


def test_a_death_without_the_evidence_is_not_history(died: KernelRun) -> None:
    half = cast("TwoStages", SimpleNamespace(site=None, ran=None))
    plan = cast("KernelPlan", SimpleNamespace(sites=()))
    garbage = cast("Uninitialised", SimpleNamespace(sites=[], wrote={}, held={}, ran=None))
    patcher = cast("LongPatchOp", SimpleNamespace(first=None, before=0))
    for act in (
        patch_in_place.two_stages(died, half, plan),
        patch_in_place.uninitialised(died, garbage, plan),
        patchlet_too_long.reported(died, patcher, ()),
        patchlet_too_long.overrun(died, patcher, ()),
        pagetable_reserve.without_the_hook(died, Buffer()),
    ):
        assert act.role is Role.OLD
        assert not act.held


@pytest.mark.parametrize("reason", ["crash", "poweroff", "dead", "timeout"])
def test_a_kernel_that_stops_before_its_end_has_died(died: KernelRun, reason: str) -> None:
    """5.4's handlers of early faults stop the CPU, which is the domain's last, and say nothing yet."""
    run = attrs.evolve(died, stop=Stop(reason, "the last vCPU went down"))
    assert run.crashed is (reason != "timeout")
    assert not attrs.evolve(run, done=True).crashed


def test_a_function_has_its_name_however_it_was_compiled() -> None:
    builder = ElfBuilder(64, base=0x1000)
    builder.text(".text", bytes(64))
    builder.symbol("text_poke_early.isra.0", 0x1010)
    image = load_image(builder.build())
    assert function_of(image, 0x1018) == POKES
    assert not function_of(image, 0x1000)
