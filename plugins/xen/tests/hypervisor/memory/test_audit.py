"""The audit finds what is wrong: each fault is planted in the table or in memory behind the model's back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.memory import audit
from pvops_xen.hypervisor.memory.entries import RW, USER, P
from pvops_xen.hypervisor.memory.frames import ALLOCATED, PINNED, VALIDATED, FrameType

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from conftest import Bench
    from pvops_xen.hypervisor.core import Hypervisor

SPARE = 0x300


def table(bench: Bench, level: int) -> int:
    """One of the builder's tables."""
    frames = bench.platform.hv.frames
    return next(mfn for mfn in range(len(frames)) if frames.in_use_as(mfn) == level)


@contextmanager
def word(bench: Bench, address: int, value: int) -> Iterator[None]:
    """Another word of memory for a while."""
    memory = bench.platform.hv.memory
    before = memory.u64(address)
    memory.set_u64(address, value)
    try:
        yield
    finally:
        memory.set_u64(address, before)


@contextmanager
def column(values: bytearray | list[int], mfn: int, change: Callable[[int], int]) -> Iterator[None]:
    """Another value in the frame table for a while."""
    before = values[mfn]
    values[mfn] = change(before)
    yield
    values[mfn] = before


def texts(hv: Hypervisor) -> str:
    return "\n".join(map(str, audit.audit(hv)))


def test_a_fresh_domain_has_no_findings(bench: Bench) -> None:
    assert audit.audit(bench.platform.hv) == []


@pytest.mark.parametrize("step", [-1, 1])
def test_a_reference_too_many_or_too_few(bench: Bench, step: int) -> None:
    frames, mfn = bench.platform.hv.frames, bench.mfn(SPARE)
    with column(frames.refs, mfn, lambda n: n + step):
        assert texts(bench.platform.hv) == f"mfn {mfn:x}: {2 + step} references kept, 2 found"
    with column(frames.types, mfn, lambda n: n + step):
        assert f"mfn {mfn:x}: {1 + step} type references kept, 1 found" in texts(bench.platform.hv)


def test_a_writable_mapping_of_a_table(bench: Bench) -> None:
    hv = bench.platform.hv
    leaf = table(bench, 1)
    with word(bench, (leaf << 12) + 8, leaf << 12 | P | RW | USER):
        assert f"mfn {leaf:x}: mapped writable by mfn {leaf:x} while it is L1" in texts(hv)


def test_a_frame_that_is_xens_or_none(bench: Bench) -> None:
    hv = bench.platform.hv
    leaf = table(bench, 1)
    with word(bench, (leaf << 12) + 8, hv.m2p | P | USER):
        assert "it is not the guest's" in texts(hv)
    with word(bench, (leaf << 12) + 8, len(hv.frames) << 12 | P | USER):
        assert "does not exist" in texts(hv)
    with pytest.raises(audit.AuditError, match="does not exist"), word(bench, (leaf << 12) + 8, 1 << 50 | P | USER):
        audit.check(hv)


def test_entries_of_the_wrong_level_or_with_forbidden_flags(bench: Bench) -> None:
    hv = bench.platform.hv
    upper = table(bench, 2)
    slot = next(slot for slot, entry in enumerate(hv.validator.table(upper)) if entry & P)
    entry = hv.memory.u64((upper << 12) + slot * 8)
    with word(bench, (upper << 12) + slot * 8, entry | 1 << 7):
        assert "forbidden flags 0x80" in texts(hv)
    with word(bench, (upper << 12) + slot * 8, bench.mfn(SPARE) << 12 | entry & 0xFFF):
        assert f"L2 table {upper:x} holds it as L1, it is WRITABLE" in texts(hv)
    with word(bench, (upper << 12) + slot * 8, upper << 12 | entry & 0xFFF | RW):
        assert "writable linear entry of itself" in texts(hv)


def test_xens_slots(bench: Bench) -> None:
    hv = bench.platform.hv
    if hv.abi.bits == 64:
        where = (table(bench, 4) << 12) + 260 * 8
    else:
        where = (hv.memory.u64((table(bench, 3) << 12) + 24) & ~0xFFF) + 511 * 8
    with word(bench, where, 0x1234007):
        assert "holds 0x1234007" in texts(hv)


def test_flags_of_frames(bench: Bench) -> None:
    frames, leaf = bench.platform.hv.frames, table(bench, 1)
    with column(frames.flags, leaf, lambda flags: flags & ~VALIDATED):
        assert "in use as L1 without having been validated" in texts(bench.platform.hv)
    with column(frames.flags, bench.mfn(SPARE), lambda flags: flags | PINNED):
        assert "pinned with 1 type references as WRITABLE" in texts(bench.platform.hv)
    with column(frames.flags, bench.mfn(SPARE), lambda flags: flags & ~ALLOCATED):
        assert "2 references kept, 1 found" in texts(bench.platform.hv)
    with column(frames.owner, bench.mfn(SPARE), lambda _: 0):
        assert "free with flags" in texts(bench.platform.hv)
    with column(frames.linear, table(bench, 2), lambda n: n + 1):
        assert "linear count 1 kept, 0 found" in texts(bench.platform.hv)


def test_descriptors_and_their_window(bench: Bench) -> None:
    hv = bench.platform.hv
    bench.set_mapping(SPARE, writable=False)
    assert bench.call(2, bench.write(0x110, bench.words(bench.mfn(SPARE))), 16) == 0
    assert hv.frames.in_use_as(bench.mfn(SPARE)) == FrameType.SEG_DESC
    with word(bench, bench.mfn(SPARE) << 12, 0x00AF_9B00_0000_FFFF):  # ring 0
        assert "holds a descriptor that Xen refuses" in texts(hv)
    with word(bench, hv.perdomain_l1[0], bench.mfn(SPARE) << 12 | 0x63):
        assert "window page 0" in texts(hv)
    with word(bench, hv.perdomain_l1[0] + 8, bench.mfn(SPARE) << 12 | 0x21):
        assert "window page 1" in texts(hv)


def test_a_vcpu_on_another_root(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(MachineKind.X86_64)
    state = bench.platform.hv.domain.vcpus[0]
    root, state.guest_table = state.guest_table, table(bench, 3)
    found = texts(bench.platform.hv)
    state.guest_table = root
    assert "vCPU 0 runs on it" in found
    assert "vCPU 0's root holds it as L4, it is L3" in found
