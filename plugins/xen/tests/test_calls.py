"""Single ops in a domain with the built-in guest in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pvops_core.session import Session
    from pvops_core.testing.call import Caller

pytestmark = pytest.mark.pvops_backends("xen")
HIDDEN_ECX = {"monitor": 3, "pcid": 17, "x2apic": 21, "xsave": 26}


@pytest.mark.pvops_kinds("pae")
def test_an_unprivileged_domain_cannot_set_the_clock(call: Caller) -> None:
    now = call("get_wallclock").result
    assert call("set_wallclock", now + 3600).result == 0xFFFFFFFF
    assert call("get_wallclock").result == pytest.approx(now, abs=1)


@pytest.mark.pvops_kinds("x86_64")
def test_cpuid_hides_features_and_leaves_other_leaves_alone(call: Caller, session: Session) -> None:
    words = [call.page() for _ in range(4)]

    def op(leaf: int) -> list[int]:
        call.cpu.set_u32(words[0], leaf)
        call.cpu.set_u32(words[2], 0)
        call("cpuid", *words)
        return [call.cpu.u32(word) for word in words]

    for leaf in (0, 2, 0x80000001, 0x40000000):
        assert op(leaf) == list(session.platform.cpuid(call.cpu, leaf, 0)), hex(leaf)
    seen, there = op(1), session.platform.cpuid(call.cpu, 1, 0)
    assert seen[:2] == list(there[:2])
    assert not any(seen[2] >> bit & 1 for bit in HIDDEN_ECX.values())
    assert seen[2] & ~there[2] == seen[3] & ~there[3] == 0
    assert not seen[3] >> 9 & 1, "no APIC"


@pytest.mark.pvops_kinds("x86_64")
@pytest.mark.pvops_vcpus(2)
@pytest.mark.parametrize(("up", "halted", "preempted"), [(1, 0, 1), (1, 1, 0), (0, 0, 0), (0, 1, 0)])
def test_a_vcpu_that_could_run_and_does_not_is_preempted(
    call: Caller, session: Session, up: int, halted: int, preempted: int
) -> None:
    other = session.machine.vcpus[1]
    (other.halt if halted else other.wake)()
    session.platform.hv.domain.vcpus[1].up = bool(up)
    preempts = session.switchboard.implementation("vcpu_is_preempted").function
    assert preempts is not None
    assert preempts(call.cpu, 1) == preempted
    assert preempts(call.cpu, 0) == 0, "it runs"
    assert preempts(call.cpu, 2) == 0, "there is none"
