"""What a payload is: when its hooks run, and what is kept of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.livepatch.payload.model import Function, HookPhase, Hooks, Payload, Record

OUTSIDE = {HookPhase.PREAPPLY, HookPhase.POSTAPPLY, HookPhase.PREREVERT, HookPhase.POSTREVERT}


@given(phases=st.sets(st.sampled_from(list(HookPhase))))
def test_replace_minds_the_hooks_outside_of_the_quiet_zone_alone(phases: set[HookPhase]) -> None:
    hooks = Hooks(dict.fromkeys(phases, (4096,)))
    assert set(hooks) == phases
    assert hooks.outside == bool(phases & OUTSIDE)
    assert {phase for phase in HookPhase if not phase.in_quiet_zone} == OUTSIDE


@pytest.mark.parametrize("phase", list(HookPhase))
def test_a_veto_or_an_action_has_a_result(phase: HookPhase) -> None:
    assert phase.result == (not phase.value.startswith("post") and phase.takes_payload)


def test_a_new_record_has_saved_nothing() -> None:
    functions = tuple(Function(name, 0x1000, 16, 4, 0x2000, b"\xe9" + bytes(4)) for name in "ab")
    record = Record(Payload(name="p", build_id=b"", depends=b"", functions=functions))
    assert record.saved == [None, None]
    assert functions[0].place == 0x1004
