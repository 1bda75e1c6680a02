"""Reading the sites of a small kernel that patches two of them itself, and powers off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

from pvops_core.backends import load_backends
from pvops_core.guests import Kernel
from pvops_core.images import KernelImage, load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.sites import read_sites
from pvops_core.runs.wire import Inspection
from pvops_core.runs.worker.inspectors import Inspectors
from pvops_core.runs.worker.pointsampler import LAST_MOMENT, PointSampler
from pvops_core.runs.worker.sitecodes import AT_THE_END, SiteCodes
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.kernels import SmallKernel

LAYOUT = LAYOUTS["6.1-64"]
OPS = ("irq.irq_disable", "irq.save_fl", "mmu.write_cr3")
BACKENDS = (load_backends().backends["native"],)


def small_kernel() -> ElfBuilder:
    types = [LAYOUT.by_path(path).type for path in OPS]
    return SmallKernel(LAYOUT, types=[*types, types[0]]).builder()


@contextmanager
def session(image: KernelImage) -> Iterator[Session]:
    with Session(Kernel(image), BACKENDS, memory=64 << 20) as opened:
        yield opened


def test_sites_are_read_as_they_are_now() -> None:
    with session(load_image(small_kernel().build())) as opened:
        codes = SiteCodes(opened)
        codes.read("now")
        assert codes.note == "read now"
        assert {op: len(sites) for op, sites in codes.codes.items()} == {"irq_disable": 2, "save_fl": 1, "write_cr3": 1}
        assert codes.forms() == {op: {"indirect": len(sites)} for op, sites in codes.codes.items()}
        segments = opened.kernel.image.segments
        for op, code in (("irq_disable", "fa0f1f440000"), ("save_fl", "e80000000090"), ("write_cr3", "660f1f440000")):
            address = int(next(iter(codes.codes[op])), 16)
            place = next(each for each in segments if 0 <= address - each.address < each.memory_size)
            opened.machine.memory.write(place.physical + address - place.address, bytes.fromhex(code))
        codes.read("later")
        assert codes.forms() == {
            "irq_disable": {"inlined": 1, "indirect": 1},
            "save_fl": {"direct": 1},
            "write_cr3": {"nop": 1},
        }


def test_a_kernel_without_sites_has_none() -> None:
    builder = ElfBuilder(64, 0x1000000)
    builder.text(".text", b"\xf4")
    with session(load_image(builder.build())) as opened:
        codes = SiteCodes(opened)
        codes.read("now")
        assert (codes.codes, codes.note) == ({}, "the kernel annotates no call of an op")


def test_damaged_sites_are_told_of_and_the_boot_goes_on() -> None:
    builder = ElfBuilder(64, 0x1000000)
    builder.text(".text", b"\xf4")
    builder.section(".parainstructions", b"\0" * 17)
    with session(load_image(builder.build())) as opened:
        assert SiteCodes(opened).note.startswith("not read: ")


class LowKernel(SmallKernel):
    """A small kernel linked where it can run before it has page tables of its own."""

    @property
    def base(self) -> int:
        return 0x1000000


@pytest.mark.parametrize(("symbol", "note"), [(LAST_MOMENT, f"read at {LAST_MOMENT}"), ("other", f"read {AT_THE_END}")])
def test_sites_are_read_before_their_text_is_freed(symbol: str, note: str) -> None:
    """The kernel spoils its site and powers off; the symbol is where it begins to."""
    builder = LowKernel(LAYOUT, types=[LAYOUT.by_path("irq.irq_disable").type]).builder()
    plain = load_image(builder.build())
    (record,) = read_sites(plain)
    spoil = b"\x90\xc6\x04\x25" + record.address.to_bytes(4, "little") + b"\xf4"  # nop; mov byte [site], 0xf4
    start = builder.text(".start", spoil + bytes.fromhex("66ba0406 66b80020 66ef f4"))
    builder.symbol(symbol, start + 1)
    image = attrs.evolve(load_image(builder.build()), entry=start)
    with session(image) as opened:
        exam = PointSampler(opened, sites=True)
        assert opened.run().reason == "poweroff"
        found = exam.found()
    (code,) = found["site_codes"]["irq_disable"].values()
    assert code.startswith("ff15" if symbol == LAST_MOMENT else "f415")
    assert found["sites_note"] == note


def test_calls_are_counted_at_the_sites() -> None:
    """The kernel makes its first site a function of its own, calls that three times, and powers off."""
    types = [LAYOUT.by_path(path).type for path in OPS]
    builder = LowKernel(LAYOUT, types=types).builder()
    first, *_ = read_sites(load_image(builder.build()))
    start = 0x1010000
    code = bytes.fromhex("bc00800000 c60425") + (first.address + 6).to_bytes(4, "little") + b"\xc3"  # mov esp; a ret
    for _ in range(3):
        code += b"\xe8" + (first.address - start - len(code) - 5).to_bytes(4, "little", signed=True)
    builder.text(".start", code + bytes.fromhex("66ba0406 66b80020 66ef f4"), address=start)
    image = attrs.evolve(load_image(builder.build()), entry=start)
    with session(image) as opened:
        inspectors = Inspectors(Inspection(trace=True), opened, BACKENDS)
        assert opened.run().reason == "poweroff"
        assert inspectors.op_calls == {"irq_disable": 3}
    with session(image) as opened:
        assert Inspectors(Inspection(), opened, BACKENDS).op_calls == {}
