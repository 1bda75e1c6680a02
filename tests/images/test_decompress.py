"""Payloads that are unpacked by readers of our own: lzop's format, whole and damaged."""

from __future__ import annotations

import contextlib
import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lzallright import LZOCompressor

from pvops_core.images import load_image
from pvops_core.images.decompress import CompressionError, unpack
from pvops_core.testing.images import ElfBuilder, wrap_payload


def lzop(
    data: bytes, *, version: int = 0x1030, flags: int = 0x3000001, name: bytes = b"", block: int = 256 << 10
) -> bytes:
    """As lzop writes it: its header, then blocks with one checksum each; such as cannot be packed are as they are."""
    head = b"\x89LZO\0\r\n\x1a\n" + struct.pack(">HH", version, 0x20A0)
    head += struct.pack(">HBB", 0x940, 3, 9) if version >= 0x940 else b"\3"
    head += struct.pack(">I", flags) + (bytes(4) if flags & 0x800 else b"")
    head += struct.pack(">II", 0o100644, 0) + (bytes(4) if version >= 0x940 else b"")
    head += bytes([len(name)]) + name + bytes(4)
    out = bytearray(head)
    for start in range(0, len(data), block):
        piece = data[start : start + block]
        packed = LZOCompressor().compress(piece)
        packed = packed if len(packed) < len(piece) else piece
        out += struct.pack(">III", len(piece), len(packed), zlib.adler32(piece)) + packed
    return bytes(out) + bytes(4)


def test_a_kernel_packed_with_lzo() -> None:
    builder = ElfBuilder()
    builder.text(".text", bytes(range(256)) * 4096)
    data = builder.build()
    assert load_image(wrap_payload(lzop(data) + struct.pack("<I", len(data)))).data == data


@pytest.mark.parametrize(
    ("version", "flags", "name"), [(0x1030, 1, b""), (0x930, 1, b"old"), (0x1040, 0x801, b"vmlinux.bin")]
)
def test_lzo_of_every_header(version: int, flags: int, name: bytes) -> None:
    data = random.Random(0).randbytes(300 << 10) + bytes(600 << 10)
    packed = lzop(data, version=version, flags=flags, name=name)
    assert unpack(packed, len(data), data[:4]) == data
    with pytest.raises(CompressionError, match="unpacks to more than"):
        unpack(packed, len(data) - 1, data[:4])
    for end in (10, 30, len(packed) - 5):
        with pytest.raises(CompressionError, match="ends early"):
            unpack(packed[:end], len(data), data[:4])


def test_blocks_that_lie() -> None:
    packed = bytearray(lzop(bytes(100)))
    at = len(lzop(b"")) - 4
    for sizes, why in (
        ((1 << 20, 10), "claims 0xa of 0x100000"),
        ((100, 0), "claims 0x0"),
        ((101, packed[at + 7]), "not 0x65"),
    ):
        struct.pack_into(">II", packed, at, *sizes)
        with pytest.raises(CompressionError, match=why):
            unpack(bytes(packed), 1 << 20, bytes(4))


@given(st.binary(max_size=200))
def test_no_lzo_does_harm(tail: bytes) -> None:
    with contextlib.suppress(CompressionError):
        unpack(lzop(b"")[:-4] + tail, 1 << 20, b"")
