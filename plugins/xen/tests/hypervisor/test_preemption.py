"""Long hypercalls are made in pieces, as Xen makes them: the guest sees one call, others get their turn between."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from pvops_xen.hypervisor.abi import PAGE_SHIFT, Hypercall
from pvops_xen.hypervisor.memory import audit
from pvops_xen.testing.guests import BASE, SmallGuest

FREE = 0x20_0000  # of the guest's memory, mapped and unused
COUNT = 10_000


@pytest.fixture(params=[64, 32])
def guest(request: pytest.FixtureRequest) -> Iterator[SmallGuest]:
    with SmallGuest(request.param) as made:
        yield made
        assert audit.audit(made.hv) == []


def put(g: SmallGuest, data: bytes, offset: int = 0) -> int:
    for at in range(0, len(data), 4096):
        mfn = g.hv.domain.p2m[(FREE + offset + at) >> PAGE_SHIFT]
        g.hv.memory.write(mfn << PAGE_SHIFT, data[at : at + 4096])
    return BASE[g.bits] + FREE + offset


def updates(g: SmallGuest) -> bytes:
    return struct.pack("<QQ", g.l1e(0), g.entry(0)) * COUNT


def test_updates(guest: SmallGuest) -> None:
    done = guest.va("data")
    before = guest.hv.stats.page_table_updates
    calls = guest.hv.stats.hypercalls["mmu_update"]
    assert guest.call(Hypercall.MMU_UPDATE, put(guest, updates(guest)), COUNT, done, 0x7FF0) == 0
    assert guest.cpu.u32(done) == COUNT
    assert guest.hv.stats.page_table_updates - before == COUNT
    assert guest.hv.stats.hypercalls["mmu_update"] - calls == 3


def test_an_error_far_on(guest: SmallGuest) -> None:
    done = guest.va("data")
    bad = updates(guest)[: 16 * 9000] + struct.pack("<QQ", 4, 0) + updates(guest)[: 16 * 999]
    assert guest.call(Hypercall.MMU_UPDATE, put(guest, bad), COUNT, done, 0x7FF0) == -38
    assert guest.cpu.u32(done) == 9000


def test_extended_operations(guest: SmallGuest) -> None:
    done = guest.va("data")
    operations = put(guest, guest.words(6, 0, 0) * COUNT)
    assert guest.call(Hypercall.MMUEXT_OP, operations, COUNT, done, 0x7FF0) == 0
    assert guest.cpu.u32(done) == COUNT


def test_a_multicall_with_a_long_call_in_it(guest: SmallGuest) -> None:
    inner = put(guest, updates(guest), 0x8_0000)
    entries = [(Hypercall.XEN_VERSION, 0), (Hypercall.MMU_UPDATE, 0, inner, COUNT, 0, 0x7FF0)]
    entries += [(Hypercall.XEN_VERSION, 0)] * 4998
    data = b"".join(guest.words(*(*entry, *[0] * 8)[:8]) for entry in entries)
    address = put(guest, data)
    assert guest.call(Hypercall.MULTICALL, address, len(entries)) == 0
    size = 8 * guest.word
    results = [guest.cpu.word(address + at * size + guest.word) for at in (0, 1, 2, 4999)]
    assert results == [4 << 16 | 17, 0, 4 << 16 | 17, 4 << 16 | 17]
    assert guest.hv.stats.page_table_updates >= COUNT


def test_a_caller_in_python_gets_the_end(guest: SmallGuest) -> None:
    address = put(guest, updates(guest))
    assert guest.session.platform.hypercall(guest.cpu, Hypercall.MMU_UPDATE, address, COUNT, 0, 0x7FF0) == 0  # type: ignore[attr-defined]


def test_time_passes_for_others(guest: SmallGuest) -> None:
    """A list that never ends: the same entries mapped again and again; the time allowed ends it."""
    g = guest
    page = updates(g)[:4096]
    mfn = g.hv.domain.p2m[FREE >> PAGE_SHIFT]
    g.hv.memory.write(mfn << PAGE_SHIFT, page)
    for index in range(64):
        g.update_va_mapping(BASE[g.bits] + FREE + (index << PAGE_SHIFT), mfn << PAGE_SHIFT | 0x61)
    g.put("mailbox", g.words(Hypercall.MMU_UPDATE, BASE[g.bits] + FREE, 64 * 256, 0, 0x7FF0, 0, 0))
    before = g.session.machine.clock.ns
    g.call(Hypercall.MMU_UPDATE, BASE[g.bits] + FREE, 64 * 256, 0, 0x7FF0)
    assert g.session.machine.clock.ns - before >= 3 * 1000
