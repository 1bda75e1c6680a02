from __future__ import annotations

from collections.abc import Callable

from pvops_core.runs.inside import BootPoint
from pvops_core.runs.observation import Observation
from pvops_core.runs.phases import PHASES, phase_rows, phases_of

Make = Callable[..., Observation]


def point(virtual_ns: int, traps: int) -> BootPoint:
    return BootPoint(virtual_ns, 0.0, vcpu=0, traps=traps, hypercalls=0, page_table_updates=0, ports=0)


POINTS = {
    "start_kernel": point(100, 1),
    "alternatives": point(1000, 5),
    "patched": point(1100, 5),
    "init": point(5000, 25),
    "power-off": point(9000, 125),
}


def test_a_phase_is_what_was_counted_between_its_points(make: Make) -> None:
    phases = phases_of(make(points=POINTS))
    assert {name: (amounts["virtual_ns"], amounts["traps"]) for name, amounts in phases.items()} == {
        "entry": (100, 1),
        "setup": (900, 4),
        "alternatives": (100, 0),
        "drivers": (3900, 20),
        "user": (4000, 100),
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
