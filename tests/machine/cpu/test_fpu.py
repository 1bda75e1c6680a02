"""The x87 and SSE registers as the machine starts with them, and as an image of fxsave sets them."""

from __future__ import annotations

import struct

import pytest

from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.fpu import AFTER_FNINIT, FXSAVE_SIZE
from pvops_core.testing.assembly import assemble
from tests.machine.conftest import DATA, Rig

USED = 288
"""Bytes of the image that have something on a processor without XMM8 to XMM15."""


def saved(rig: Rig) -> bytes:
    rig.cpu.cr4 |= 0x200  # OSFXSR
    rig.code(assemble(f"fxsave [{DATA:#x}]; hlt", rig.kind.bits))
    assert rig.run() == "poweroff"
    return rig.memory.read(DATA, FXSAVE_SIZE)


def without_mask(image: bytes) -> bytes:
    """MXCSR's mask says what the processor is, not what is loaded."""
    return image[:28] + bytes(4) + image[32:USED]


def test_it_starts_as_after_fninit(rig: Rig) -> None:
    assert without_mask(saved(rig)) == without_mask(AFTER_FNINIT)


@pytest.mark.parametrize("top", range(8))
def test_an_image_comes_back(rig: Rig, top: int) -> None:
    image = bytearray(FXSAVE_SIZE)
    struct.pack_into("<HHB19xI", image, 0, 0x0273, top << 11 | 0x41, 0b0110_1001, 0x1FA5)
    for number in range(8):
        image[32 + 16 * number : 42 + 16 * number] = bytes(range(20 * number, 20 * number + 10))
    wide = 16 if rig.long else 8
    for number in range(wide):
        image[160 + 16 * number : 176 + 16 * number] = bytes(range(100 + number, 116 + number))
    rig.cpu.load_fpu(bytes(image))
    read = rig.cpu.save_fpu()
    after = saved(rig)
    assert without_mask(read) == without_mask(after)
    assert read[USED : 160 + 16 * wide] == after[USED : 160 + 16 * wide]
    assert without_mask(after) == without_mask(image)
    assert after[USED : 160 + 16 * wide] == image[USED : 160 + 16 * wide]


def test_a_reserved_bit_of_mxcsr_is_refused(rig: Rig) -> None:
    image = bytearray(FXSAVE_SIZE)
    image[24:28] = (1 << 16).to_bytes(4, "little")
    with pytest.raises(GuestFault) as caught:
        rig.cpu.load_fpu(bytes(image))
    assert (caught.value.vector, caught.value.error_code) == (13, 0)
    assert without_mask(saved(rig)) == without_mask(AFTER_FNINIT)
