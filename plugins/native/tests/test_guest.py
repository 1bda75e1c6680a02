"""The built-in guest on bare metal."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import pytest
from pvops_native import backend

from pvops_core.errors import MachineError, UsageError
from pvops_core.guests import LAYOUTS
from pvops_core.session import Session
from pvops_core.testing.equivalence import bench_of, check_equivalence, pairs

BACKENDS = {"native": backend}
SECOND = 1_000_000_000


ONE_OF_EACH = ("2.6.23-lapic", "2.6.24-pae", "6.1-64")


@attrs.frozen
class Run:
    """What a run left behind."""

    results: Mapping[str, object]
    log: str
    console: str


def run(layout: str, seed: int = 0, vcpus: int = 1) -> Run:
    with Session.of_builtin(layout, "native", backends=BACKENDS, seed=seed, vcpus=vcpus) as session:
        stop = session.run(max_ns=10 * SECOND)
        console = session.platform.console.decode()
        assert stop.reason == "poweroff", console
        assert session.report().counts["ticks"] > 0
        return Run(session.report().results, session.machine.log.sha256, console)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_boots_and_no_seed_changes_its_results(layout: str) -> None:
    one, two = run(layout, vcpus=2), run(layout, seed=1, vcpus=2)
    assert "guest: " in one.console
    assert "panic" not in one.console
    assert one.results == two.results
    assert one.results["ncpus"] == 2


@pytest.mark.parametrize("vcpus", [1, 4])
def test_every_processor_takes_part(vcpus: int) -> None:
    assert run("6.1-64", vcpus=vcpus).results["ncpus"] == vcpus


@pytest.mark.parametrize("layout", ONE_OF_EACH)
def test_a_seed_decides_everything(layout: str) -> None:
    assert run(layout, seed=3, vcpus=2) == run(layout, seed=3, vcpus=2)


@pytest.mark.parametrize("layout", ONE_OF_EACH)
def test_a_restored_machine_goes_the_same_way(layout: str) -> None:
    with Session.of_builtin(layout, "native", backends=BACKENDS) as session:
        session.run(max_ns=1_000_000)
        start, ends = session.machine.snapshot(), []
        for _ in range(2):
            session.machine.restore(start)
            session.run(max_ns=10 * SECOND)
            ends.append((session.machine.clock.ns, session.machine.log.sha256, session.report().results))
        assert ends[0] == ends[1]


@pytest.mark.parametrize("layout", ["2.6.24", "6.1-64"])
def test_hook_and_patchlet_agree_in_the_guest(layout: str) -> None:
    with Session.of_builtin(layout, "native", backends=BACKENDS) as session:
        bench = bench_of(session)
        for op in pairs(bench):
            if op != "irq_enable_sysexit":  # the guest has no user pages before it runs
                check_equivalence(bench, op, seed=7)


def test_a_small_machine_is_refused() -> None:
    with pytest.raises(MachineError, match="does not fit"):
        Session.of_builtin("2.6.24", "native", backends=BACKENDS, memory=1 << 20)


def test_a_bad_date_is_refused() -> None:
    with pytest.raises(UsageError, match="rtc"):
        Session.of_builtin("2.6.24", "native", backends=BACKENDS, options={"rtc": "noon"})
