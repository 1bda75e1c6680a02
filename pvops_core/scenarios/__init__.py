"""Scenarios: failures of the past, played again on the built-in guest, with the evidence and the way it was mended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pvops_core.scenarios import early_cr3, livepatches, pagetable_reserve, patch_in_place, patchlet_too_long
from pvops_core.scenarios.acts import Act, Check, Role
from pvops_core.scenarios.model import Performance, Scenario, perform
from pvops_core.scenarios.stage import Stage

SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        patch_in_place.SCENARIO,
        pagetable_reserve.SCENARIO,
        early_cr3.SCENARIO,
        patchlet_too_long.SCENARIO,
        livepatches.TIMEOUT,
        livepatches.STACKED,
    )
}
"""All scenarios by name, in the order of what they show."""

__all__ = ["SCENARIOS", "Act", "Check", "Performance", "Role", "Scenario", "Stage", "perform"]
