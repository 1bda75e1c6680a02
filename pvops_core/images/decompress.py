"""Payload decompression for everything that Linux's x86 build offers, with a bound on what comes out.

The kernel's build appends the unpacked size to each payload that does not carry it itself (scripts/Makefile.lib,
``size_append``), so a payload that unpacks to more than it declares is refused as soon as it does so.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import lz4.block
import zstandard
from lzallright import LZOCompressor, LZOError

CHUNK: Final = 1 << 20
ZSTD_STEP: Final = 1 << 10
ZSTD_WINDOW: Final = 1 << 27
"""ZSTD_WINDOWSIZE_MAX of lib/decompress_unzstd.c: what ``zstd --ultra -22`` asks for, whatever the kernel's size."""
LZ4_LEGACY: Final = b"\x02\x21\x4c\x18"
LZO_BLOCK: Final = 256 << 10
"""LZO_BLOCK_SIZE: the most that a block of lzop's unpacks to."""
_LZOP_LEVELS: Final = 0x0940
"""From this version of lzop on its header has a level, and the time in two words."""
_LZOP_FILTER: Final = 0x800
LZ4_BLOCK: Final = 8 << 20
"""Unpacked size of every block of lz4's legacy format but the last."""

Stream = Callable[[bytes, int], Iterator[bytes]]


class CompressionError(ValueError):
    """The payload is damaged or unpacks to more than allowed; the caller knows the file and the offset."""


def _gzip(data: bytes, limit: int) -> Iterator[bytes]:
    # 31: window of 32 KiB, and gzip's header wanted.
    engine = zlib.decompressobj(wbits=31)
    while not engine.eof:
        # Never more than asked for, whatever the stream expands to.
        piece = engine.decompress(data, min(CHUNK, limit))
        if not piece and not engine.unconsumed_tail and not engine.eof:
            raise CompressionError("the gzip stream ends early")
        data = engine.unconsumed_tail
        yield piece


def _pull(engine: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: bytes) -> Iterator[bytes]:
    while not engine.eof:
        piece = engine.decompress(data, CHUNK)
        if not piece and engine.needs_input:
            raise CompressionError("the stream ends early")
        data = b""
        yield piece


def _bzip2(data: bytes, limit: int) -> Iterator[bytes]:
    del limit
    return _pull(bz2.BZ2Decompressor(), data)


def _lzma(data: bytes, limit: int) -> Iterator[bytes]:
    # The dictionary of a hostile stream may claim 4 GiB; the kernel's own never exceeds what it unpacks to.
    memory = max(limit, 64 << 20) + (64 << 20)
    return _pull(lzma.LZMADecompressor(memlimit=memory), data)


def _lz4(data: bytes, limit: int) -> Iterator[bytes]:
    position = len(LZ4_LEGACY)
    room = min(LZ4_BLOCK, limit)
    # The four bytes that may be left at the end are the size that the build appended.
    while position + 4 < len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        position += 4
        # A block of no bytes is not lz4's, and would never end.
        if size == 0 or position + size > len(data):
            raise CompressionError(f"the lz4 block at payload offset {position - 4:#x} claims {size:#x} bytes")
        # The size bounds what comes out.
        piece = lz4.block.decompress(data[position : position + size], uncompressed_size=room)
        yield piece
        # Only the last block may be shorter.
        if len(piece) < LZ4_BLOCK:
            return
        position += size


def _zstd(data: bytes, limit: int) -> Iterator[bytes]:
    del limit
    engine = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
    # The reader that bounds its output goes on into the appended size as if it were a frame. This one stops; and as no
    # block has fewer than 4 bytes or unpacks to more than 128 KiB, small pieces bound what one step gives.
    for start in range(0, len(data), ZSTD_STEP):
        yield engine.decompress(data[start : start + ZSTD_STEP])
        if engine.eof:
            return
    raise CompressionError("the zstd frame ends early")


def _lzo(data: bytes, limit: int) -> Iterator[bytes]:
    """Lzop's file format as lib/decompress_unlzo.c takes it: a header, then blocks; numbers are big endian."""
    del limit
    position = _lzop_header(data)
    while (size := _big_endian(data, position)) != 0:
        # Sizes of both, then a checksum (lzop's format).
        packed = _big_endian(data, position + 4)
        if size > LZO_BLOCK or not 0 < packed <= size:
            raise CompressionError(
                f"the lzo block at payload offset {position:#x} claims {packed:#x} of {size:#x} bytes"
            )
        position += 12  # one checksum, of the unpacked bytes
        block = data[position : position + packed]
        if len(block) < packed:
            raise CompressionError("the lzo stream ends early")
        # Blocks that do not shrink are stored.
        piece = block if packed == size else LZOCompressor.decompress(block, size)
        if len(piece) != size:
            raise CompressionError(f"an lzo block unpacks to {len(piece):#x} bytes, not {size:#x}")
        yield piece
        position += packed


def _lzop_header(data: bytes) -> int:
    """Bytes of the header, whose fields depend on its version and flags."""
    version = int.from_bytes(data[9:11], "big")
    newer = version >= _LZOP_LEVELS
    flags = 17 if newer else 14
    position = flags + 4 + (4 if _big_endian(data, flags) & _LZOP_FILTER else 0)
    position += 12 if newer else 8  # mode, and the time of the file
    name = data[position] if position < len(data) else 0
    # The name's length, the name and the header's checksum.
    return position + 1 + name + 4


def _big_endian(data: bytes, position: int) -> int:
    word = data[position : position + 4]
    if len(word) < 4:
        raise CompressionError("the lzo stream ends early")
    return int.from_bytes(word, "big")


FORMATS: Final[tuple[tuple[str, bytes, Stream], ...]] = (
    ("gzip", b"\x1f\x8b", _gzip),
    ("bzip2", b"BZh", _bzip2),
    ("xz", b"\xfd7zXZ\0", _lzma),
    ("lzma", b"\x5d\0\0", _lzma),
    ("lz4", LZ4_LEGACY, _lz4),
    ("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    ("lzo", b"\x89LZO", _lzo),
)
"""Name, magic and reader, as include/linux/decompress and lib/decompress.c list them."""

_FAILURES = (
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    lzma.LZMAError,
    lz4.block.LZ4BlockError,
    zstandard.ZstdError,
    LZOError,
)


def identify(data: bytes) -> str | None:
    """Name of the format that ``data`` begins like, or None."""
    return next((name for name, magic, _ in FORMATS if data.startswith(magic)), None)


def unpack(data: bytes, limit: int, magic: bytes) -> bytes:
    """Unpack a payload.

    Args:
        data: the payload, from its magic on; what follows the compressed stream is ignored.
        limit: most bytes that may come out.
        magic: what the first unpacked bytes must be; anything else stops the work after one chunk.

    Raises:
        PayloadError: unknown format, damaged stream, more than ``limit`` bytes, or another beginning.
    """
    # By magic, for the header says nothing of the method.
    name = identify(data)
    stream = next((reader for known, _, reader in FORMATS if known == name), None)
    if stream is None:
        raise CompressionError(f"cannot unpack an unknown format (begins {data[:6].hex(' ')})")
    pieces: list[bytes] = []
    total = 0
    try:
        # One more than allowed shows that there is more.
        for piece in filter(None, stream(data, limit + 1)):
            _check_piece(piece, total, limit, magic)
            pieces.append(piece)
            total += len(piece)
    except CompressionError:
        raise
    except _FAILURES as failure:
        raise CompressionError(f"damaged {name} stream: {failure}") from failure
    return b"".join(pieces)


def _check_piece(piece: bytes, before: int, limit: int, magic: bytes) -> None:
    # At the first piece: a stream of rubbish must not be unpacked to its end.
    if not before and not piece.startswith(magic):
        raise CompressionError(f"unpacks to something that begins {piece[:4].hex(' ')}, not {magic.hex(' ')}")
    if before + len(piece) > limit:
        raise CompressionError(f"unpacks to more than the {limit:#x} bytes it declares")
