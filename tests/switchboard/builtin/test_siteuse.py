"""What becomes of a backend's own ops: every way in which one can be without effect is told, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
from pvops_native.ops.patch import PatchOps
from pvops_native.ops.tlb import TlbOps

from pvops_core.backends import Backend, Environment, load_backends
from pvops_core.hookspecs import hookimpl
from pvops_core.ops import LAYOUTS
from pvops_core.patching.patchlets import Patchlet
from pvops_core.runs.plan import machine_kinds
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.patching.context import PatchContext
    from pvops_core.switchboard.builtin.siteuse import SiteUse

BACKENDS = load_backends().backends
OVER_BY_PATCHLET = "write_cr3 is yours, but 3 of 3 sites are inlined over it by native's patchlet; "


class OneOp:
    """One op."""

    def __init__(self, env: Environment) -> None:
        self._native = TlbOps(env)
        self._patch = PatchOps(env)

    @hookimpl
    def write_cr3(self, cpu: Vcpu, cr3: int) -> None:
        self._native.write_cr3(cpu, cr3)


class Patching(OneOp):
    """And native's patch as its own."""

    @hookimpl
    def patch(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        return self._patch.patch(ctx, type, clobbers, insnbuf, addr, len)


class Several(OneOp):
    """And one that is called with several CPUs alone."""

    @hookimpl
    def flush_tlb_others(self, cpu: Vcpu, cpus: int, va: int) -> None:
        self._native.flush_tlb_others(cpu, cpus, va)


OWN = Backend(name="own", api=2, base="native", ops=OneOp)


def site_uses(own: Backend, layout: str, vcpus: int = 1, *, cmdline: str = "") -> dict[str, SiteUse]:
    with Session.of_builtin(layout, own.name, backends={**BACKENDS, own.name: own}, vcpus=vcpus, cmdline=cmdline) as s:
        assert s.run().reason == "poweroff"
        return dict(s.switchboard.site_uses())


def test_an_alternative_stands_in_its_place() -> None:
    use = site_uses(OWN, "6.1-64")["write_cr3"]
    assert (use.becomes, use.over, use.calls) == ("lost", {"ALTERNATIVE !XENPV": 3}, 1)
    assert use.told == (
        "write_cr3 is yours, but 3 of 3 sites are inlined over it by ALTERNATIVE !XENPV; "
        "declare forces=frozenset({'XENPV'}) to have it called"
    )


def test_what_is_advised_helps() -> None:
    found = site_uses(attrs.evolve(OWN, forces=frozenset({"XENPV"})), "6.1-64")
    assert [(use.becomes, use.told) for use in found.values()] == [("called", "")]
    assert found["write_cr3"].calls == 15


@pytest.mark.parametrize("layout", ["2.6.23-lapic", "2.6.24", "2.6.24-pae"])
def test_a_base_s_patchlet_stands_in_its_place(layout: str) -> None:
    advice = "native.patch puts it there: have a patch of your own that leaves it to patch_default"
    assert site_uses(OWN, layout)["write_cr3"].told == OVER_BY_PATCHLET + advice


def test_its_own_patch_put_the_base_s_patchlet_there() -> None:
    advice = "your patch puts it there: let it leave write_cr3 to patch_default"
    assert site_uses(attrs.evolve(OWN, ops=Patching), "2.6.24")["write_cr3"].told == OVER_BY_PATCHLET + advice


def test_its_own_patchlet_is_no_loss() -> None:
    own = attrs.evolve(OWN, patchlets=tuple(one for one in BACKENDS["native"].patchlets if one.op == "write_cr3"))
    use = site_uses(own, "2.6.24")["write_cr3"]
    assert (use.becomes, use.inlined, use.told) == ("inlined", 3, "")


def test_another_patchlet_of_its_own_is_lost_too() -> None:
    nothing = Patchlet("write_cr3", asm="nop", code="90")
    assert site_uses(attrs.evolve(OWN, patchlets=(nothing,)), "2.6.24")["write_cr3"].told.startswith(OVER_BY_PATCHLET)


@pytest.mark.parametrize(("field", "form"), [("nops", "nop"), ("empty", "empty")])
def test_ops_that_do_nothing_are_lost_likewise(field: str, form: str) -> None:
    # What native has a patchlet for, and an op that its patch leaves to the slot.
    own = Backend(name="own", api=2, base="native", **{field: frozenset({"clts", "load_tls"})})
    with Session.of_builtin("2.6.24", "own", backends={**BACKENDS, "own": own}) as session:
        session.switchboard.apply_paravirt()
        found = session.switchboard.site_uses()
    assert (found["clts"].becomes, found["load_tls"].becomes) == ("lost", form)
    assert found["clts"].told.startswith("clts is yours, but 2 of 2 sites are inlined over it by native's patchlet")
    assert not found["load_tls"].told


def test_no_call_at_all() -> None:
    own = attrs.evolve(OWN, ops=Several)
    alone, both = (site_uses(own, "2.6.24", vcpus)["flush_tlb_others"] for vcpus in (1, 2))
    assert alone.told == "flush_tlb_others is yours, but the guest never called it at any of its 2 sites"
    assert (both.becomes, both.told) == ("called", "")


def test_an_unpatched_guest_calls_everything() -> None:
    assert site_uses(OWN, "2.6.24", cmdline="noreplace-paravirt")["write_cr3"].becomes == "called"


def test_who_is_switched_to_from_outside_is_nobody_s_own() -> None:
    with Session.of_builtin("6.1-64", "own", backends={**BACKENDS, "own": OWN}) as session:
        session.switchboard.switch("write_cr3", "native", by="test")
        assert not session.switchboard.site_uses()


def _there() -> list[tuple[str, str]]:
    return [(name, layout) for name, each in BACKENDS.items() for layout in _layouts(each)]


def _layouts(backend: Backend) -> list[str]:
    built = ("2.6.23-lapic", "2.6.23-lapic-pae", "2.6.24", "2.6.24-pae", "6.1-64")
    return [layout for layout in built if LAYOUTS[layout].kind in machine_kinds(backend, BACKENDS)]


@pytest.mark.parametrize(("name", "layout"), _there())
def test_nothing_of_the_backends_here_is_lost(name: str, layout: str) -> None:
    with Session.of_builtin(layout, name, backends=BACKENDS) as session:
        session.switchboard.apply_paravirt()
        found = session.switchboard.site_uses()
    assert found
    assert not [use.told for use in found.values() if use.over]


def test_own_calls_are_those_of_its_own_hooks() -> None:
    own = attrs.evolve(OWN, forces=frozenset({"XENPV"}))
    with Session.of_builtin("6.1-64", "own", backends={**BACKENDS, "own": own}) as session:
        saved = session.switchboard.save()
        session.run()
        board = session.switchboard
        assert board.own_calls == {"write_cr3": board.calls["write_cr3"]}
        assert board.calls.total() > 5_000
        board.load(saved)
        assert not board.calls
        assert not board.own_calls
