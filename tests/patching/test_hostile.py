"""Kernels damaged on purpose, read to the end: planned or refused, never more."""

from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.kernel import NativeKernel
from pvops_xen.kernel import XenKernel

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.altinstructions.alternatives import ALWAYS, FEATURES
from pvops_core.patching.altinstructions.whole import plan_alternatives
from pvops_core.patching.kernel import patched_image, plan_kernel, read_kernel
from pvops_core.testing.kallsyms import TableShape
from pvops_core.testing.kernels import Alternative, SmallKernel
from tests.patching import ages

if TYPE_CHECKING:
    from pvops_core.ops import Layout


def kernel(layout: Layout) -> bytes:
    entries = [
        Alternative(index, FEATURES["XENPV"], inverted=True, code=b"\x9c\x58" * (index % 3))
        for index in range(0, len(layout.slots), 3)
    ]
    small = SmallKernel(layout, types=range(len(layout.slots)), alternatives=entries)
    if small.direct:
        small.typed, small.stripped = True, TableShape(64, "own" if layout.name == "7.2-64" else "after")
    return small.builder().build()


GOOD = {name: kernel(LAYOUTS[name]) for name in ("6.1-64", "6.1-32", "6.12-64", "7.2-64")}
GOOD |= {name: ages.kernel(age).data for name, age in ages.AGES.items()}
SPOILT = (".parainstructions", ".altinstructions", ".data", ".init.text", ".altinstr_replacement", ".symtab", ".BTF")
SPOILT += (".kallsyms",)


def to_the_end(raw: bytes) -> bool:
    """Whether the kernel could be planned; it is refused with a place otherwise."""
    start = time.process_time()
    try:
        plan = plan_kernel(read_kernel(load_image(raw, "hostile")), [NativeKernel()], 2)
        patched_image(plan, plan_alternatives(plan, frozenset({3, ALWAYS})).groups)
    except ImageError as failure:
        refusal = failure
    else:
        return True
    assert time.process_time() - start < 2
    assert refusal.path == "hostile"
    assert refusal.field
    return False


@pytest.mark.parametrize("name", GOOD)
def test_the_undamaged_kernel_is_planned(name: str) -> None:
    assert to_the_end(GOOD[name])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data(), name=st.sampled_from(sorted(GOOD)))
def test_flipped_bytes(data: st.DataObject, name: str) -> None:
    raw = bytearray(GOOD[name])
    image = load_image(GOOD[name])
    places = [image.section(each) for each in SPOILT]
    for _ in range(data.draw(st.integers(1, 5))):
        section = data.draw(st.sampled_from([place for place in places if place is not None]))
        raw[section.offset + data.draw(st.integers(0, section.size - 1))] = data.draw(st.integers(0, 255))
    to_the_end(bytes(raw))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), name=st.sampled_from(sorted(GOOD)))
def test_section_headers_that_lie(data: st.DataObject, name: str) -> None:
    """Sizes and places of sections that are inside the file and wrong: zero, overlapping, cut, moved."""
    raw = bytearray(GOOD[name])
    wide = "-64" in name
    (table,) = struct.unpack_from("<Q" if wide else "<I", raw, 40 if wide else 32)
    count = struct.unpack_from("<H", raw, 60 if wide else 48)[0]
    header, word = (64, "<Q") if wide else (40, "<I")
    members = (8, 16, 24, 32, 56) if wide else (8, 12, 16, 20, 36)  # flags, addr, offset, size, entsize
    for _ in range(data.draw(st.integers(1, 3))):
        at = table + header * data.draw(st.integers(0, count - 1)) + data.draw(st.sampled_from(members))
        (old,) = struct.unpack_from(word, raw, at)
        limit = (1 << (64 if wide else 32)) - 1
        value = data.draw(st.sampled_from([0, 1, old // 2, old + 1, old + 0x1000, limit, limit // 2, len(raw)]))
        struct.pack_into(word, raw, at, value & limit)
    to_the_end(bytes(raw))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(GOOD)), data=st.data())
def test_cut_off(name: str, data: st.DataObject) -> None:
    assert not to_the_end(GOOD[name][: data.draw(st.integers(0, len(GOOD[name]) - 1))])


def test_xen_tables_that_lead_out_of_the_image() -> None:
    builder = SmallKernel(LAYOUTS["6.1-64"], types=range(84)).builder()
    for symbol in ("xen_cpu_ops", "xen_irq_ops", "xen_mmu_ops"):
        builder.symbol(symbol, 0xFFFFFFFFFFFFF000)
    builder.notes(("Xen", 1, bytes(8)))
    image = load_image(builder.build())
    with pytest.raises(ImageError, match="no segment holds"):
        plan_kernel(read_kernel(image), [XenKernel()], 1)


MUTANTS = int(os.environ.get("PVOPS_MUTANTS", "120"))
"""How many are made of each kernel; 10,000 take some minutes."""

GROWTH = 48 << 20
"""Bytes that the process may grow by from the first tenth of them on: what the interpreter keeps for itself."""

VALUES = (0, 1, 2, 6, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutant(good: bytes, rng: random.Random) -> bytes:
    """A kernel with one to four faults in what says where and what its sites are: bits, numbers, pieces, holes."""
    raw = bytearray(good)
    image = load_image(good)
    places = [section for each in SPOILT if (section := image.section(each)) is not None]
    for _ in range(rng.randint(1, 4)):
        section = rng.choice(places)
        at = section.offset + rng.randrange(section.size)
        end = section.offset + section.size
        match rng.randrange(5):
            case 0:
                raw[at] ^= 1 << rng.randrange(8)
            case 1:
                size = rng.choice((1, 2, 4))
                value = rng.choice(VALUES) & (1 << 8 * size) - 1
                raw[at : min(at + size, end)] = value.to_bytes(size, "little")[: end - at]
            case 2:
                size = min(rng.choice((4, 12, 14, 16, 64)), end - at)
                start = section.offset + rng.randrange(section.size - size + 1)
                raw[at : at + size] = raw[start : start + size]
            case 3:
                size = min(rng.choice((1, 8, 100, 1000)), end - at)
                raw[at : at + size] = rng.choice((b"\0", b"\xff", b"\x90")) * size
            case _:
                (distance,) = struct.unpack_from("<i", raw, min(at, end - 4))
                moved = (distance + rng.choice((-0x1000, -6, -1, 1, 4, 6, 0x1000)) + (1 << 31)) % (1 << 32) - (1 << 31)
                struct.pack_into("<i", raw, min(at, end - 4), moved)
    return bytes(raw)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", ["6.1-64", "6.12-64", "7.2-64", *ages.AGES])
def test_mutants(name: str) -> None:
    rng = random.Random(f"mutants of {name}")
    planned, before = 0, 0
    for number in range(MUTANTS):
        if number == MUTANTS // 10:
            before = resident()
        planned += to_the_end(mutant(GOOD[name], rng))
    assert 0 < planned < MUTANTS
    assert resident() - before < GROWTH
