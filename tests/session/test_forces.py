"""The CPU features that a backend forces: with them a hook is called where an ALTERNATIVE would be in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
from pvops_native.ops.patch import PatchOps
from pvops_native.ops.tlb import TlbOps

from pvops_core.backends import Backend, Environment
from pvops_core.hookspecs import hookimpl
from pvops_core.patching.altinstructions.alternatives import FEATURES
from pvops_core.patching.patchdefault import patch_default
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.patching.context import PatchContext


class Ops:
    """Counts its own calls, and does what bare metal does."""

    def __init__(self, env: Environment) -> None:
        self.calls = 0
        self._tlb, self._patch = TlbOps(env), PatchOps(env)
        made.append(self)

    @hookimpl
    def write_cr3(self, cpu: Vcpu, cr3: int) -> None:
        self.calls += 1
        self._tlb.write_cr3(cpu, cr3)

    @hookimpl
    def patch(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        if ctx.layout.by_type(type).op.name == "write_cr3":
            return patch_default(ctx, type, clobbers, insnbuf, addr, len)
        return self._patch.patch(ctx, type, clobbers, insnbuf, addr, len)


made: list[Ops] = []
OWN = Backend(name="own", api=2, base="native", ops=Ops)
FORCING = attrs.evolve(OWN, forces=frozenset({"XENPV"}))


def own_calls(backends: dict[str, Backend], own: Backend, layout: str, vcpus: int = 1) -> tuple[int, Session]:
    with Session.of_builtin(layout, "own", backends={**backends, "own": own}, vcpus=vcpus) as session:
        assert session.run().reason == "poweroff"
        assert session.switchboard.calls["write_cr3"] == made[-1].calls
        return made[-1].calls, session


@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_hook_is_called_as_often_in_every_layout(backends: dict[str, Backend], vcpus: int) -> None:
    calls, before = own_calls(backends, OWN, "2.6.24", vcpus)
    assert calls > vcpus
    # Which process runs where is up to the ticks, so that with two CPUs the number is of the same kind only.
    found, after = own_calls(backends, FORCING, "6.1-64", vcpus)
    assert found == calls if vcpus == 1 else found > calls // 2
    assert before.report().results["syscalls"] == after.report().results["syscalls"]


def test_without_it_the_instruction_is_in_its_place(backends: dict[str, Backend]) -> None:
    assert own_calls(backends, OWN, "6.1-64")[0] == 1


def test_results_are_those_of_its_base(backends: dict[str, Backend]) -> None:
    with Session.of_builtin("6.1-64", "native", backends=backends) as session:
        session.run()
        wanted = session.report().results
    _, session = own_calls(backends, FORCING, "6.1-64")
    assert session.report().results == wanted


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_can_be_forced(backends: dict[str, Backend], name: str) -> None:
    own = attrs.evolve(OWN, forces=frozenset({name}))
    _, session = own_calls(backends, own, "6.1-64")
    assert session.switchboard.features() == {FEATURES[name]}


def test_a_base_forces_for_those_on_it(backends: dict[str, Backend]) -> None:
    upper = Backend(name="upper", api=2, base="own", forces=frozenset({"PVUNLOCK"}))
    there = {**backends, "own": FORCING, "upper": upper}
    with Session.of_builtin("6.1-64", "upper", backends=there) as session:
        assert session.switchboard.features() == {FEATURES["XENPV"], FEATURES["PVUNLOCK"]}
