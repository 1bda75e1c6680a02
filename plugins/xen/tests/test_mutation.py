"""Random hypercalls: nothing raises, the frame table stays right, and a planted fault is found and named."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import MmuExt
from pvops_xen.hypervisor.memory import audit, mmuext
from pvops_xen.hypervisor.memory.validate import Validator
from pvops_xen.testing.guests import SmallGuest
from pvops_xen.testing.mutation import MutationError, MutationRun, Mutator
from pvops_xen.testing.programs import run_random

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from conftest import Bench


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE], ids=["64", "pae"])
@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_hypercalls(make_bench: Callable[..., Bench], kind: MachineKind, seed: int) -> None:
    bench = make_bench(kind, 2)
    assert MutationRun(bench.platform.hv, bench.cpu, seed, stretch=100).make(1000) == 1000


def test_the_domain_runs_on_as_if_nothing_had_been(bench64: Bench) -> None:
    """Even if a call of the run has crashed it."""
    machine = bench64.machine
    snapshot = machine.snapshot()
    bench64.platform.hv.crash("as a random iret does")
    machine.restore(snapshot)
    assert bench64.run("b811000000 31ff 0f05 0f0b").detail.startswith("Unhandled: vec 6")


def test_one_seed_makes_the_same_calls(make_bench: Callable[..., Bench]) -> None:
    logs = []
    for _ in range(2):
        bench = make_bench(MachineKind.X86_64)
        mutator = Mutator(bench.platform.hv, bench.cpu, random.Random(7))
        logs.append([str(mutator.draw()) for _ in range(40)])
    assert logs[0] == logs[1]


@pytest.mark.parametrize("bits", [64, 32])
def test_random_code(bits: int) -> None:
    with SmallGuest(bits) as guest:
        for seed in range(150):
            outcome = run_random(guest, seed)
            assert outcome.kind in {"trap", "crash", "done", "timeout", "poweroff", "reboot", "dead"}, f"seed {seed}"
            assert audit.audit(guest.hv) == [], f"seed {seed}"


def test_an_error_in_the_host_names_seed_and_call(bench64: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: object) -> int:
        raise KeyError("planted")

    monkeypatch.setitem(mmuext._EXTENDED, MmuExt.UNPIN_TABLE, raising)
    with pytest.raises(MutationError, match=r"seed 0/\d+: m\w+\(0x.* raised KeyError: 'planted'"):
        MutationRun(bench64.platform.hv, bench64.cpu, 0).make(2000)


def test_a_forgotten_reference_names_seed_and_call(bench64: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Validator.put_entry

    def forgetful(self: Validator, entry: int, level: int, table_mfn: int) -> None:
        if level != 1 or not entry & 2:
            honest(self, entry, level, table_mfn)

    monkeypatch.setattr(Validator, "put_entry", forgetful)
    with pytest.raises(MutationError, match=r"seed 0/\d+: after .*references kept"):
        MutationRun(bench64.platform.hv, bench64.cpu, 0).make(2000)
