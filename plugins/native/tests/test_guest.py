"""The built-in guest on bare metal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pvops_native import backend

from pvops_core.errors import MachineError, UsageError
from pvops_core.guests.builtin import LAYOUTS
from pvops_core.guests.session import Session
from pvops_core.testing.equivalence import bench_of, check_equivalence, pairs

BACKENDS = {"native": backend}
SECOND = 1_000_000_000


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param  # type: ignore[no-any-return]  # pytest's parameters have no type


def test_it_boots_and_reports(layout: str) -> None:
    with Session.builtin(layout, "native", backends=BACKENDS) as session:
        stop = session.run(max_ns=10 * SECOND)
        console = session.platform.console.decode()
        assert stop.reason == "poweroff", console
        assert "guest: " in console
        assert "panic" not in console
        assert session.report().counts["ticks"] > 0


def test_results_do_not_depend_on_seed_or_processors(layout: str) -> None:
    results = []
    for seed, vcpus in ((0, 1), (1, 1), (0, 1)):
        with Session.builtin(layout, "native", backends=BACKENDS, seed=seed, vcpus=vcpus) as session:
            assert session.run(max_ns=10 * SECOND).reason == "poweroff"
            results.append((session.report().results, session.machine.log.sha256))
    assert results[0] == results[2]
    assert results[0][0] == results[1][0]


@pytest.mark.parametrize("vcpus", [2, 4])
def test_it_boots_on_several_processors(layout: str, vcpus: int) -> None:
    with Session.builtin(layout, "native", backends=BACKENDS, vcpus=vcpus) as session:
        assert session.run(max_ns=10 * SECOND).reason == "poweroff", session.platform.console.decode()


def test_a_restored_machine_goes_the_same_way(layout: str) -> None:
    with Session.builtin(layout, "native", backends=BACKENDS) as session:
        session.run(max_ns=1_000_000)
        start, ends = session.machine.snapshot(), []
        for _ in range(2):
            session.machine.restore(start)
            session.run(max_ns=10 * SECOND)
            ends.append((session.machine.clock.ns, session.machine.log.sha256, session.report().results))
        assert ends[0] == ends[1]


def test_hook_and_patchlet_agree_in_the_guest(layout: str) -> None:
    with Session.builtin(layout, "native", backends=BACKENDS) as session:
        bench = bench_of(session)
        for op in pairs(bench):
            if op != "irq_enable_sysexit":  # the guest has no user pages before it runs
                check_equivalence(bench, op, seed=7)


def test_a_small_machine_is_refused() -> None:
    with pytest.raises(MachineError, match="does not fit"):
        Session.builtin("2.6.24", "native", backends=BACKENDS, memory=1 << 20)


def test_a_bad_date_is_refused() -> None:
    with pytest.raises(UsageError, match="rtc"):
        Session.builtin("2.6.24", "native", backends=BACKENDS, options={"rtc": "noon"})
