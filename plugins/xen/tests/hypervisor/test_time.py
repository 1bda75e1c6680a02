"""The time record: renewed each second and when a vCPU is scheduled in, by the version protocol (arch/x86/time.c)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from pvops_xen.hypervisor.abi import Hypercall, VcpuOp
from pvops_xen.hypervisor.memory import audit
from pvops_xen.testing.contexts import guest_context, initialise
from pvops_xen.testing.guests import SmallGuest

SECOND = 10**9
TIME = 32  # vcpu_info.time, in both widths


class Record(NamedTuple):
    version: int
    tsc: int
    ns: int
    multiplier: int
    shift: int
    flags: int


@pytest.fixture(params=[64, 32])
def guest(request: pytest.FixtureRequest) -> Iterator[SmallGuest]:
    with SmallGuest(request.param, vcpus=2) as made:
        yield made
        assert audit.audit(made.hv) == []


def record(g: SmallGuest, index: int = 0) -> Record:
    address = g.hv.domain.vcpus[index].info + TIME
    return Record(*struct.unpack("<I4xQQIbB", g.hv.memory.read(address, 30)))


def register_area(g: SmallGuest, address: int) -> int:
    op = VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA
    return g.call(Hypercall.VCPU_OP, op, 0, g.put("data", g.words(address)))


def test_it_is_renewed_when_a_vcpu_is_scheduled_in(guest: SmallGuest) -> None:
    before = record(guest)
    guest.session.machine.clock.advance(5 * SECOND)
    guest.call(Hypercall.XEN_VERSION, 0, 0)
    assert record(guest) == before._replace(version=before.version + 2, tsc=5 * SECOND, ns=5 * SECOND)


def just_before(g: SmallGuest, ns: int) -> None:
    clock = g.session.machine.clock
    clock.advance(ns - 100_000 - clock.ns)


def test_it_is_renewed_each_second_of_a_vcpu_that_runs_on(guest: SmallGuest) -> None:
    """The guest goes on when it sees a new version."""
    letter = "r" if guest.bits == 64 else "e"
    guest.update_va_mapping(guest.va(0), guest.hv.domain.shared_info | 1)
    code = f"""
        mov {letter}di, {guest.va(0) + TIME:#x}
        mov eax, [{letter}di]
    1:  cmp eax, [{letter}di]
        je 1b
    """
    for ns in (SECOND, 2 * SECOND, 3 * SECOND):
        just_before(guest, ns)
        assert guest.execute(code, max_ns=200_000).kind == "done"
        assert record(guest).ns == ns
        assert ns <= guest.session.machine.clock.ns < ns + 10_000


def test_it_stays_within_a_second(guest: SmallGuest) -> None:
    before = record(guest)
    guest.session.machine.clock.advance(SECOND // 2)
    guest.call(Hypercall.XEN_VERSION, 0, 0)
    assert record(guest) == before


def test_a_version_in_the_middle_of_a_change_becomes_a_whole_one(guest: SmallGuest) -> None:
    """``version_update_begin``: whatever the guest left there, it is odd during the change and even after it."""
    address = guest.hv.domain.vcpus[0].info + TIME
    for version, after in ((7, 10), (8, 10), (0xFFFF_FFFF, 2), (0xFFFF_FFFE, 0)):
        guest.hv.memory.set_u32(address, version)
        register_area(guest, guest.va(0))
        assert record(guest).version == after


def test_a_registered_area_says_the_same(guest: SmallGuest) -> None:
    before = record(guest)
    assert register_area(guest, guest.va(0)) == 0
    assert record(guest) == before._replace(version=before.version + 2)
    guest.session.machine.clock.advance(2 * SECOND)
    guest.call(Hypercall.XEN_VERSION, 0, 0)
    area = guest.hv.memory.read(guest.mfn(0) << 12, 30)
    assert Record(*struct.unpack("<I4xQQIbB", area)) == record(guest)
    assert record(guest).ns == 2 * SECOND


def test_an_area_that_is_not_mapped_is_left_alone(guest: SmallGuest) -> None:
    assert register_area(guest, 0x2000_0000) == 0
    guest.session.machine.clock.advance(2 * SECOND)
    guest.call(Hypercall.XEN_VERSION, 0, 0)
    assert record(guest).ns == 2 * SECOND
    assert register_area(guest, guest.hv.abi.m2p_start) == -14


def test_a_process_that_runs_on_gets_it_too(guest: SmallGuest) -> None:
    assert register_area(guest, guest.va(0)) == 0
    just_before(guest, SECOND)
    got = guest.execute_as_user("1: pause\n jmp 1b", max_ns=200_000)
    assert got.kind == "timeout"
    assert record(guest).ns == SECOND
    assert guest.hv.memory.u64((guest.mfn(0) << 12) + 8) == SECOND


def test_a_vcpu_that_comes_later_has_it_from_its_start(guest: SmallGuest) -> None:
    guest.session.machine.clock.advance(3 * SECOND)
    assert initialise(guest, guest_context(guest)) == 0
    assert record(guest, 1).ns == 0
    guest.place("1: pause\n jmp 1b")
    guest.bring_up(1, max_ns=3_000_000)
    assert record(guest, 1).ns == 3 * SECOND


def test_vcpu_info_that_moves_takes_it_along(guest: SmallGuest) -> None:
    guest.session.machine.clock.advance(SECOND)
    where = struct.pack("<QII", guest.mfn(0), 64, 0)
    assert guest.call(Hypercall.VCPU_OP, VcpuOp.REGISTER_VCPU_INFO, 0, guest.put("data", where)) == 0
    assert record(guest).ns == SECOND
    assert guest.hv.memory.u64((guest.mfn(0) << 12) + 64 + TIME + 16) == SECOND
