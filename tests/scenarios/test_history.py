"""The scenarios end as history did, and the evidence is what the machine would show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.guests import builtin_guest
from pvops_core.scenarios import SCENARIOS, Role
from pvops_core.scenarios.early_cr3 import VMEMMAP

if TYPE_CHECKING:
    from pvops_core.scenarios import Act, Performance
    from tests.scenarios.conftest import Play


def acts(performance: Performance, role: Role) -> list[Act]:
    return [act for act in performance.acts if act.role is role]


def number(act: Act, name: str) -> int:
    return int(str(act.facts[name]), 0)


def code(act: Act, name: str) -> bytes:
    return bytes.fromhex(str(act.facts[name]))


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_scenario_is_as_history_or_the_rule_says(play: Play, name: str) -> None:
    performance = play(name)
    failed = [(act.title, check.claim) for act in performance.acts for check in act.checks if not check.held]
    assert not failed
    assert performance.honest
    assert performance.of_a_rule is not bool(performance.commits), "history has commits, a rule has none"
    for act in acts(performance, Role.OLD):
        assert act.story
        assert act.ending.startswith("crash: ")


def test_half_a_site_is_executed(play: Play) -> None:
    old, _uninitialised = acts(play("patch-in-place"), Role.OLD)
    built, crashed = code(old, "bytes_built"), code(old, "bytes_at_crash")
    site, rip = number(old, "site"), number(old, "rip")
    assert built[:2] == b"\xff\x15"
    assert crashed == crashed[:5] + built[5:]
    assert crashed[0] == 0xE8
    assert rip == site + 5
    assert (old.facts["fault_vector"], old.facts["function"]) == (14, "text_poke_checked")
    assert f"at {rip:08x}, address {number(old, 'fault_address'):08x}" in old.ending


def test_native_never_has_half_a_site(play: Play) -> None:
    (native,) = acts(play("patch-in-place"), Role.ELSEWHERE)
    assert "on native (patch=two-stage)" in native.title
    assert native.facts["exceptions"] != 0


def test_garbage_of_the_stack_is_executed(play: Play) -> None:
    _two_stages, old = acts(play("patch-in-place"), Role.OLD)
    assert old.facts["garbage"] == old.facts["declined"] == old.facts["code_of_the_site_before"]
    assert number(old, "declined") > 50
    assert old.facts["bytes_when_fixed"] == old.facts["bytes_built"]
    site, garbage = number(old, "site"), code(old, "bytes_at_crash")
    assert garbage[0] == 0xE8
    assert site + 5 == number(old, "return_address")
    assert number(old, "return_address") + int.from_bytes(garbage[1:5], "little", signed=True) == number(old, "rip")


@pytest.mark.parametrize(("layout", "which"), [("6.1-64", 0), ("2.6.24-pae", 1)])
def test_a_spare_page_is_still_read_only(play: Play, layout: str, which: int) -> None:
    old = acts(play("pagetable-reserve"), Role.OLD)[2 * which]
    buffer = old.facts["buffer"]
    assert isinstance(buffer, tuple)
    _start, end, top = map(int, buffer)
    assert layout in old.title
    assert end == number(old, "frame") < top
    assert number(old, "fault_address") == builtin_guest(layout).kernel_base + (end << 12)
    assert (old.facts["fault_vector"], old.facts["error_code"]) == (14, 3)
    assert number(old, "entry") & 3 == 1


@pytest.mark.parametrize("which", [0, 1])
def test_a_page_mapped_writable_is_refused_as_a_table(play: Play, which: int) -> None:
    old = acts(play("pagetable-reserve"), Role.OLD)[2 * which + 1]
    assert (old.facts["hypercall"], old.facts["command"], old.facts["error"]) == ("mmuext_op", "PIN_L1_TABLE", -22)
    assert (old.facts["frame_type"], old.facts["wanted_type"], old.facts["type_count"]) == ("WRITABLE", "L1", 1)
    assert old.facts["fault_vector"] == 6


def test_the_user_pgd_is_looked_for_where_nothing_is(play: Play) -> None:
    performance = play("early-cr3")
    (old,), (fixed,) = acts(performance, Role.OLD), acts(performance, Role.FIXED)
    assert number(old, "fault_address") == VMEMMAP + number(old, "root_frame") * 64 + 0x28
    assert f"address {number(old, 'fault_address'):016x}" in old.ending
    assert old.facts["history"] == ("0 ns: write_cr3: xen.write_cr3 -> xen.xen_write_cr3 by scenario early-cr3",)
    switches = fixed.facts["history"]
    assert isinstance(switches, tuple)
    assert len(switches) == 1
    assert str(switches[0]).endswith("xen.write_cr3 -> xen.xen_write_cr3 by xen_write_cr3_init")


def test_a_patchlet_that_is_too_long(play: Play) -> None:
    performance = play("patchlet-too-long")
    reported, overrun = acts(performance, Role.OLD)
    assert "used > site->len" in str(reported.facts["panic"])
    assert number(reported, "used") == 10 > number(reported, "site_length") == 6
    end = number(overrun, "site") + number(overrun, "site_length")
    built, crashed = code(overrun, "bytes_built"), code(overrun, "bytes_at_crash")
    assert built[:2] == b"\xff\x15"
    assert crashed[:6] == bytes.fromhex("9c 48 81 24 24 ff")
    assert crashed[6:10] != built[6:10]
    assert end <= number(overrun, "rip") < end + 4 + 15
    refused, fitting = acts(performance, Role.FIXED)
    assert refused.ending == (
        "not loaded: irq_disable, bytes 9c 48 81 24 24 ff fd ff ff 9d: 10 bytes do not fit into a site of 6"
    )
    assert number(fitting, "patchlet_size") == 1
    assert number(fitting, "inlined") > 2


def test_the_fixed_guest_computes_what_it_does_elsewhere(play: Play) -> None:
    performances = [play("patch-in-place"), play("pagetable-reserve")]
    for layout in ("2.6.23-lapic-pae", "6.1-64", "2.6.24-pae"):
        digests = {
            act.facts["digest"]
            for performance in performances
            for act in performance.acts
            if layout in act.title and act.role is not Role.OLD
        }
        assert len(digests) == 1, layout
