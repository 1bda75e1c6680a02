"""Room for entries: int3 where there is any, else nops that nothing comes to."""

from __future__ import annotations

import pytest

from pvops_core.errors import PatchError
from pvops_core.images import KernelImage, load_image
from pvops_core.switchboard.kernel.padding import PIECE, SitePadding
from pvops_core.testing.images import ElfBuilder

BASE = 0xC1000000
LEA = bytes.fromhex("8d b4 26 00 00 00 00 8d 76 00")  # ten bytes of nops
LONG = bytes.fromhex("66 2e 0f 1f 84 00 00 00 00 00")


def kernel(*functions: bytes) -> KernelImage:
    """A kernel whose functions begin at symbols, one behind the other."""
    builder, text = ElfBuilder(32, base=BASE), b""
    for number, code in enumerate((*functions, b"\xc3")):
        builder.symbol(f"f{number}", BASE + len(text))
        text += code
    builder.text(".text", text)
    return load_image(builder.build(), "small")


@pytest.mark.parametrize("nops", [LEA, LONG, b"\x90" * 10, b"\x66\x90" * 5])
@pytest.mark.parametrize("end", [b"\xc3", b"\xe9\0\0\0\0", b"\xeb\xfe"])
def test_nops_between_functions(nops: bytes, end: bytes) -> None:
    padding = SitePadding(kernel(b"\x55" + end + nops))
    address = padding.take()
    assert address == BASE + 1 + len(end)
    assert padding.filler(address) == nops[:PIECE]
    with pytest.raises(PatchError, match="no padding left"):
        padding.take()
    padding.give_back(address)
    assert padding.take() == address


@pytest.mark.parametrize(
    "code",
    [
        b"\x55" + LEA,  # what comes before falls into them
        b"\xb8\0\0\0\xc3" + LEA,  # a return that is part of another instruction
        b"\xc3" + LEA + b"\x55",  # they are inside a function
        b"\xc3" + LEA[:7],  # too short
        b"\xc3" + b"\x8d\xb4\x26\x01\0\0\0\x8d\x76\0",  # no nop
    ],
)
def test_nops_that_are_no_room(code: bytes) -> None:
    with pytest.raises(PatchError, match="no padding left"):
        SitePadding(kernel(code)).take()


def test_int3_goes_before_nops() -> None:
    padding = SitePadding(kernel(b"\xc3" + LEA, b"\xc3" + b"\xcc" * 9))
    assert padding.take() == BASE + 1 + len(LEA) + 2
    assert padding.filler(BASE + 1 + len(LEA) + 2) == b"\xcc" * PIECE
