"""What a kernel must be for a scenario, and who hosts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import UsageError
from pvops_core.scenarios import SCENARIOS, perform

if TYPE_CHECKING:
    from pvops_core.scenarios.kernels.stage import KernelStage


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("patch-in-place", "has no patch op: it patches by one fixed rule; this scenario needs one with a patch op"),
        ("patchlet-too-long", "has no patch op"),
        ("pagetable-reserve", "has no x86_init; this scenario needs one of x86_64 with XEN_PV, 2.6.39 to 3.6"),
        ("livepatch-stacked", "on the built-in guest alone"),
    ],
)
def test_another_age_is_refused_with_the_one_that_is_needed(small_stage: KernelStage, name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        perform(SCENARIOS[name], small_stage)


def test_a_backend_that_cannot_load_a_kernel_does_not_host_it(small_stage: KernelStage) -> None:
    assert small_stage.hosts("native")
    assert not small_stage.hosts("xen")
    with pytest.raises(UsageError, match="needs the backend 'nosuch'"):
        small_stage.chain("nosuch")
