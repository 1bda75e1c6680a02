"""Descriptors: what the host makes of the guest's, and what it keeps to itself."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_lguest.host.abi import Call
from pvops_lguest.host.segments import IGNORED, fixed_up

if TYPE_CHECKING:
    from .conftest import MakeHost
    from .rig import Host

WORDS = st.integers(0, 2**32 - 1)


@settings(max_examples=200, derandomize=True)
@given(low=WORDS, high=WORDS)
def test_only_level_0_and_a_clear_accessed_bit_change(low: int, high: int) -> None:
    new_low, new_high = fixed_up(low, high)
    assert new_low == low
    assert new_high & 0x100
    assert new_high >> 13 & 3 == (high >> 13 & 3 or 1)
    assert (new_high ^ high) & ~(0x100 | 0x2000) == 0


def load(host: Host, entries: int = 32) -> None:
    table = b"".join(struct.pack("<II", 0x1000 + n, 0xCF9200) for n in range(entries))
    host.machine.memory.write(0x150000, table)
    host.call(Call.LOAD_GDT, 0x150000, entries)


def test_the_hosts_own_entries_stay(host: Host) -> None:
    host.init()
    before = {index: host.state.segments.entry(index) for index in IGNORED}
    load(host)
    assert {index: host.state.segments.entry(index) for index in IGNORED} == before
    assert {10, 11, 16, 31} == IGNORED
    assert host.state.segments.entry(6) == (0x1006, 0xCFB300)


def test_a_short_table_leaves_the_rest(host: Host) -> None:
    host.init()
    load(host)
    host.machine.memory.write(0x151000, struct.pack("<4I", 0, 0, 7, 0x92 << 8))
    host.call(Call.LOAD_GDT, 0x151000, 2)
    assert host.state.segments.entry(1) == (7, 0xB300)
    assert host.state.segments.entry(2) == (0x1002, 0xCFB300)


def test_the_cpu_sees_the_hosts_table_in_every_address_space(host: Host) -> None:
    host.init()
    for gpgdir in (host.gpgdir, 0x180000, 0x181000, 0x182000, 0x183000, 0x184000):
        host.machine.memory.write(gpgdir, host.machine.memory.read(host.gpgdir, 4096))
        host.call(Call.NEW_PGTABLE, gpgdir)
        walk = host.vcpu.walk(0xFFC00000)
        assert walk.pa == host.state.segments.pa
        assert not walk.flags & 4  # not the guest's user mode


@pytest.mark.parametrize("index", [6, 9, 15])
def test_one_entry_at_a_time(make_host: MakeHost, index: int) -> None:
    host = make_host("2.6.35").init()
    host.call(Call.LOAD_GDT_ENTRY, index, 0xFFFF, 0xCFF200)
    assert host.state.segments.entry(index) == (0xFFFF, 0xCFF300)
    host.call(Call.LOAD_GDT_ENTRY, 16, 0xFFFF, 0xCFF200)
    assert host.state.segments.entry(16) == (0, 0)
