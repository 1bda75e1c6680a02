"""The built-in guest on lguest: the same results as on bare metal, its ops' two forms alike, and repeatable."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from pvops_lguest import backend as lguest
from pvops_lguest.patchlets import LGUEST_PATCHLETS
from pvops_lguest.platform import LguestPlatform
from pvops_native import backend as native

from pvops_core.guests import LAYOUTS
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS as CATALOGUE
from pvops_core.session import Session
from pvops_core.testing.equivalence import bench_of, check_equivalence, pairs

BACKENDS = {"native": native, "lguest": lguest}
GUESTS = [name for name in LAYOUTS if CATALOGUE[name].kind is MachineKind.I386]


def run(layout: str, backend: str, cmdline: str = "", *, seed: int = 0) -> Session:
    session = Session.of_builtin(layout, backend, backends=BACKENDS, cmdline=cmdline, seed=seed)
    try:
        stop = session.run(max_ns=20_000_000_000)
        assert stop.reason == "poweroff", f"{stop} {session.platform.console.decode()}"
    except BaseException:
        session.close()
        raise
    return session


@pytest.fixture(params=GUESTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("cmdline", ["", "noreplace-paravirt"])
def test_the_results_are_those_of_bare_metal(layout: str, cmdline: str) -> None:
    with run(layout, "native", cmdline) as bare, run(layout, "lguest", cmdline) as guest:
        assert guest.report().results == bare.report().results
        platform = guest.platform
        assert isinstance(platform, LguestPlatform)
        assert platform.hypercalls["NEW_PGTABLE"] >= 1
        assert platform.shadow_fills > 0
        assert platform.batched.total() <= platform.hypercalls.total()


def test_patched_sites_hold_the_templates(layout: str) -> None:
    with run(layout, "lguest") as session:
        symbols = session.guest.symbols
        expected = {patchlet.op: patchlet.assemble(0, symbols) for patchlet in LGUEST_PATCHLETS}
        seen = set()
        for site in session.builtin.sites:
            op = session.layout.by_type(site.type).op.name
            code = expected.get(op)
            if code is not None and site.length >= len(code):
                assert session.read(site.address, len(code)) == code
                seen.add(op)
        assert seen == set(expected)


def test_two_runs_have_one_event_log(layout: str) -> None:
    with run(layout, "lguest", seed=5) as first, run(layout, "lguest", seed=5) as second:
        assert first.machine.log.sha256 == second.machine.log.sha256
        assert first.machine.clock.ns == second.machine.clock.ns
        assert first.text_sha256() == second.text_sha256()


@pytest.fixture
def fresh(layout: str) -> Iterator[Session]:
    with Session.of_builtin(layout, "lguest", backends=BACKENDS) as session:
        yield session


@pytest.mark.parametrize("op", [patchlet.op for patchlet in LGUEST_PATCHLETS])
def test_hook_and_patchlet_do_the_same(fresh: Session, op: str) -> None:
    word = fresh.guest.symbols["lguest_data"] - fresh.guest.kernel_base

    def prepare(generator: random.Random) -> None:
        fresh.machine.memory.set_u32(word, generator.choice((0, 0x200)))

    bench = bench_of(fresh, prepare)
    assert op in pairs(bench)
    for seed in range(3):
        check_equivalence(bench, op, seed)
