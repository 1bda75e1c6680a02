from __future__ import annotations

from collections.abc import Callable

from pvops_core.runs.observation import Observation
from pvops_core.runs.phases import PHASES, phase_rows, phases_of

Make = Callable[..., Observation]
POINTS = {
    "start_kernel": {"virtual_ns": 100, "traps": 1},
    "alternatives": {"virtual_ns": 1000, "traps": 5},
    "patched": {"virtual_ns": 1100, "traps": 5},
    "init": {"virtual_ns": 5000, "traps": 25},
    "power-off": {"virtual_ns": 9000, "traps": 125},
}


def test_a_phase_is_what_was_counted_between_its_points(make: Make) -> None:
    assert phases_of(make(points=POINTS)) == {
        "entry": {"virtual_ns": 100, "traps": 1},
        "setup": {"virtual_ns": 900, "traps": 4},
        "alternatives": {"virtual_ns": 100, "traps": 0},
        "drivers": {"virtual_ns": 3900, "traps": 20},
        "user": {"virtual_ns": 4000, "traps": 100},
    }


def test_the_phases_make_the_whole_boot(make: Make) -> None:
    assert list(phases_of(make(points=POINTS))) == list(PHASES)
    assert sum(amounts["virtual_ns"] for amounts in phases_of(make(points=POINTS)).values()) == 9000


def test_a_boot_that_died_has_the_phases_that_it_went_through(make: Make) -> None:
    points = {name: POINTS[name] for name in ("start_kernel", "alternatives")}
    assert list(phases_of(make(points=points))) == ["entry", "setup"]
    assert phases_of(make()) == {}


def test_rows_go_phase_by_phase_and_only_those_wanted(make: Make) -> None:
    boots = [make(points=POINTS), make("xen", points=POINTS)]
    assert [row[:2] for row in phase_rows(boots, ("setup", "user"))] == [
        ("setup", "native"),
        ("setup", "xen"),
        ("user", "native"),
        ("user", "xen"),
    ]
    assert len(list(phase_rows(boots, ()))) == 10
