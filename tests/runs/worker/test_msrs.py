from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from pvops_core.backends import load_backends
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.runs.worker.msrs import SECTION, count_msrs, msr_instructions
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder

BASE, TABLE = 0x1000000, 0x1002000
# mov ecx, 0x1b; rdmsr; rdmsr; wrmsr; cpuid; power-off
CODE = bytes.fromhex("b91b000000 0f32 0f32 0f30 0fa2 66ba0406 66b80020 66ef f4")
READS, WRITE, OTHER = (BASE + 5, BASE + 7), BASE + 9, BASE + 11
Make = Callable[..., bytes]


def kernel(size: int, places: tuple[int, ...], bits: int = 64) -> bytes:
    builder = ElfBuilder(bits, BASE)
    builder.text(".text", CODE)
    records = (
        struct.pack("<ii", place - TABLE - size * index, 0x10).ljust(size, b"\1") for index, place in enumerate(places)
    )
    builder.section(SECTION, b"".join(records), address=TABLE)
    return builder.build()


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("size", [8, 12])
def test_they_are_found_in_both_shapes_of_the_table(size: int, bits: int) -> None:
    image = load_image(kernel(size, (*READS, WRITE, OTHER, 0x77), bits))
    assert msr_instructions(image) == {READS[0]: "msr_reads", READS[1]: "msr_reads", WRITE: "msr_writes"}


def test_a_kernel_without_the_table_has_none() -> None:
    builder = ElfBuilder(64, BASE)
    builder.text(".text", CODE)
    assert msr_instructions(load_image(builder.build())) == {}


@pytest.mark.parametrize("places", [(*READS, WRITE), ()], ids=["with-table", "without"])
def test_they_are_counted_as_they_are_executed(places: tuple[int, ...]) -> None:
    image = load_image(kernel(12, places))
    native = load_backends().backends["native"]
    with Session(Kernel(image), (native,), memory=32 << 20) as session:
        count_msrs(session)
        assert session.run().reason == "poweroff"
        assert (session.machine.counts["msr_reads"], session.machine.counts["msr_writes"]) == (2, 1)
