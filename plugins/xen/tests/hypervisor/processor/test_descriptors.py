"""Descriptor tables as the CPU itself uses them, and which descriptors Xen takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvops_xen.hypervisor.abi import EBUSY, EINVAL, MmuExt
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.processor.descriptors import check_descriptor

if TYPE_CHECKING:
    from conftest import Bench

LDT = 0x300
DATA = 0x00CF_F200_0000_FFFF


def use_ldt(bench: Bench, selector: int) -> str:
    """Load FS with a selector, then stop at ud2."""
    return bench.run(f"66b8{selector.to_bytes(2, 'little').hex()}8ee00f0b").detail


def test_ldt_pages_are_mapped_when_they_are_first_used(bench: Bench) -> None:
    base = bench.write(LDT, DATA.to_bytes(8, "little") * 4)
    bench.set_mapping(LDT, writable=False)
    assert bench.mmuext(MmuExt.SET_LDT, base, 4) == 0
    frames = bench.platform.hv.frames
    assert frames.in_use_as(bench.mfn(LDT)) == FrameType.NONE
    assert use_ldt(bench, 2 << 3 | 7).startswith("Unhandled: vec 6")
    assert bench.cpu.get("fs") == 2 << 3 | 7
    assert frames.in_use_as(bench.mfn(LDT)) == FrameType.SEG_DESC
    assert bench.set_mapping(LDT, writable=True) == -EBUSY
    assert bench.mmuext(MmuExt.SET_LDT, 0, 0) == 0
    assert bench.set_mapping(LDT, writable=True) == 0


def test_an_ldt_that_can_be_written_is_not_used(bench: Bench) -> None:
    base = bench.write(LDT, DATA.to_bytes(8, "little") * 4)
    assert bench.mmuext(MmuExt.SET_LDT, base, 4) == 0
    assert use_ldt(bench, 7).startswith("Unhandled: vec 14")


def test_bad_ldt_arguments(bench: Bench) -> None:
    assert bench.mmuext(MmuExt.SET_LDT, bench.va(LDT) + 8, 4) == -EINVAL
    assert bench.mmuext(MmuExt.SET_LDT, bench.va(LDT), 8193) == -EINVAL


def test_a_gdt_of_the_guests(bench: Bench) -> None:
    bench.write(LDT, bytes(16) + DATA.to_bytes(8, "little"))
    bench.set_mapping(LDT, writable=False)
    assert bench.call(2, bench.write(0x110, bench.words(bench.mfn(LDT))), 16) == 0
    assert use_ldt(bench, 0x13).startswith("Unhandled: vec 6")
    assert bench.cpu.get("fs") == 0x13


@pytest.mark.parametrize("bits", [32, 64])
@given(descriptor=st.integers(0, (1 << 64) - 1))
def test_no_descriptor_reaches_xens_ring(bits: int, descriptor: int) -> None:
    checked = check_descriptor(descriptor, bits)
    if checked is None or not checked >> 47 & 1:
        return
    ring = 3 if bits == 64 else 1
    if checked >> 44 & 1:
        assert checked >> 45 & 3 >= ring
        assert (checked ^ descriptor) & ~(3 << 45 | 1 << 40) & ~(0xF << 48 | 0xFFFF if bits == 32 else 0) == 0
    elif checked >> 40 & 0xF:
        assert checked >> 40 & 0xF == 0xC
        assert checked >> 45 & 3 == 0  # no guest may go through it by itself
        assert checked >> 16 & 3 >= ring
    assert check_descriptor(checked, bits) == checked
