"""A scenario does not call history true because something failed: what must be seen must be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from pvops_core.errors import UsageError
from pvops_core.machine import Stop
from pvops_core.scenarios import (
    SCENARIOS,
    Act,
    Check,
    Performance,
    Role,
    Scenario,
    Stage,
    early_cr3,
    pagetable_reserve,
    patch_in_place,
    patchlet_too_long,
    perform,
    too_long,
)
from pvops_core.scenarios.acts import unlike_history, works

if TYPE_CHECKING:
    from pvops_core.scenarios.stage import StagedRun


@pytest.fixture(scope="module")
def strange(sound: StagedRun) -> StagedRun:
    """A crash for a reason that history does not know."""
    faults = tuple(attrs.evolve(fault, rip=fault.rip ^ 0x1000) for fault in sound.faults[:1])
    return attrs.evolve(sound, stop=Stop("crash", "for no reason"), done=False, faults=faults, history=())


def test_a_sound_run_is_no_failure_of_the_past(sound: StagedRun, strange: StagedRun) -> None:
    for run in (sound, strange):
        for judge in (
            patch_in_place.two_stages,
            pagetable_reserve.spare_pages_read_only,
            pagetable_reserve.mapped_too_early,
            early_cr3.late_from_the_start,
            patchlet_too_long.reported,
            patchlet_too_long.overrun,
        ):
            act = judge(run)
            assert act.role is Role.OLD
            assert not act.held, (judge, run.stop)
        assert not patch_in_place.uninitialised(run, sound).held


def test_a_crash_is_no_fix(strange: StagedRun) -> None:
    for judge in (patch_in_place.in_one_piece, early_cr3.early_then_late, pagetable_reserve.reserved):
        assert not judge(strange).held


def test_a_plugin_that_is_let_in_is_no_fix() -> None:
    act = patchlet_too_long.refused(())
    assert not act.held
    assert act.ending == "loaded"


def test_garbage_elsewhere_is_told_from_garbage_where_the_patcher_declined(stage: Stage) -> None:
    fixed = stage.run("2.6.23-lapic-pae", "xen")
    declined = patch_in_place.garbage(fixed, fixed).declined
    site, ((start, code),) = declined[0], fixed.text
    text = bytearray(code)
    text[site.address - start] ^= 0xFF
    found = patch_in_place.garbage(attrs.evolve(fixed, text=((start, bytes(text)),)), fixed)
    assert found.wrong == (site,)
    assert found.declined == declined


def test_no_checks_is_not_held_and_one_role_is_not_a_story(sound: StagedRun) -> None:
    assert not Act(Role.OLD, "", "", ()).held
    fixed = works(Role.FIXED, "fixed", sound)
    old = Act(Role.OLD, "old", "crash", (Check("it crashes", held=True),))
    stage = Stage({})

    def played(*acts: Act) -> Performance:
        return perform(Scenario("name", "summary", (), lambda _stage: acts), stage)

    assert played(old, fixed).honest
    assert not played(fixed).honest
    assert not played(old).honest
    assert not played(old, fixed, unlike_history("old", sound, "it crashes")).honest


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_backend_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=r"backend '(xen|native)'|based on 'native'"):
        perform(SCENARIOS[name], Stage({}))


def test_an_xen_without_the_late_op_is_a_usage_error(stage: Stage) -> None:
    with pytest.raises(UsageError, match="has no xen_write_cr3"):
        stage.run("6.1-64", "native", prepare=_of_native)


def _of_native(session: object) -> None:
    class Board:
        def offered(self, op: str, backend: str) -> object:
            del backend
            return session.switchboard.offered(op, "native")  # type: ignore[attr-defined]

    class Other:
        switchboard = Board()

    early_cr3.use_late_version(Other())  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1, 7])
def test_the_reasons_do_not_depend_on_the_seed(stage: Stage, seed: int) -> None:
    seeded = attrs.evolve(stage, seed=seed)
    assert pagetable_reserve.mapped_too_early(seeded.run("2.6.24-pae", "xen", "map=early-rw")).held
    assert patchlet_too_long.overrun(
        seeded.run("6.1-64", too_long.backend_with(too_long.Overrunning), patchlet_too_long.CMDLINE)
    ).held
