"""The scenarios of live patching: what is refused, why, and that the guest never minds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.scenarios import Role

if TYPE_CHECKING:
    from tests.scenarios.conftest import Play


@pytest.mark.parametrize("name", ["livepatch-timeout", "livepatch-stacked"])
def test_what_is_refused_harms_nobody(play: Play, name: str) -> None:
    performance = play(name)
    failed = [(act.title, check.claim) for act in performance.acts for check in act.checks if not check.held]
    assert not failed
    assert [act.role for act in performance.acts] == [Role.REFUSED, Role.ALLOWED]
    assert len({act.facts["digest"] for act in performance.acts}) == 1, "the guest's results are the same"


def test_the_late_vcpu_is_named_with_its_reason(play: Play) -> None:
    late, _ = play("livepatch-timeout").acts
    assert "CPU quiesce phase 0/0 (vcpu 0 did not come): vcpu 0 interrupts are off" in late.story[0]


def test_each_refusal_has_its_errno(play: Play) -> None:
    wrong, right = play("livepatch-stacked").acts
    refused = [line for line in wrong.story if "failed" in line]
    assert [line.partition(": -")[2].partition(" ")[0] for line in refused] == ["EINVAL", "EINVAL", "EBUSY"]
    assert not any("failed" in line for line in right.story)
