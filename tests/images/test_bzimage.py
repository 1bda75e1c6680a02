from __future__ import annotations

import gzip
import lzma
import struct
import time
import zlib
from pathlib import Path

import lz4.block
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.images.bzimage import UNPACKED_LIMIT
from pvops_core.testing.images import PACKERS, ElfBuilder, make_bzimage, wrap_payload

PAYLOAD_AT = 4 * 512 + 64


def vmlinux(size: int = 4096) -> bytes:
    builder = ElfBuilder()
    builder.text(".text", bytes(range(256)) * (size // 256))
    return builder.build()


@pytest.mark.parametrize(
    ("packer", "size"),
    [*((packer, 4096) for packer in PACKERS), ("lz4", 9 << 20), ("zstd", 9 << 20), ("gzip", 2 << 20)],
)
def test_every_format(packer: str, size: int) -> None:
    data = vmlinux(size)
    image = load_image(make_bzimage(data, packer, release="6.1.9"), "k")
    assert image.data == data
    assert image.release == "6.1.9"


def test_a_kernel_packed_as_a_whole() -> None:
    packed = gzip.compress(vmlinux(), mtime=0)
    image = load_image(packed)
    assert (image.data, image.sha256) == (vmlinux(), load_image(vmlinux()).sha256)
    with pytest.raises(ImageError, match="k: offset 0x0: the gzip stream ends early"):
        load_image(packed[:-20], "k")
    with pytest.raises(ImageError, match="begins 2e 2f 61 00, not 7f 45 4c 46"):
        load_image(gzip.compress(b"./a\0"))


def test_uncompressed_payload() -> None:
    assert load_image(wrap_payload(vmlinux())).data == vmlinux()


def test_what_the_build_appends_to_the_kernel_belongs_to_the_image() -> None:
    data = vmlinux() + b"relocations"
    assert load_image(make_bzimage(data, "xz")).data == data


def test_old_protocol_without_payload_fields() -> None:
    assert load_image(make_bzimage(vmlinux(), "gzip", protocol=0x204)).data == vmlinux()


def refused(data: bytes) -> ImageError:
    start = time.process_time()
    with pytest.raises(ImageError) as caught:
        load_image(data, "bad")
    assert time.process_time() - start < 2
    assert caught.value.path == "bad"
    return caught.value


@pytest.mark.parametrize("packer", PACKERS)
def test_truncated_payload(packer: str) -> None:
    payload = PACKERS[packer](vmlinux())
    error = refused(wrap_payload(payload[: len(payload) // 2]))
    assert error.field in {"payload", "payload size"}


@pytest.mark.parametrize(
    ("at", "value", "field"), [(0x248, 1 << 31, "payload_offset"), (0x24C, 1 << 31, "payload_length")]
)
def test_payload_outside_the_file(at: int, value: int, field: str) -> None:
    data = bytearray(make_bzimage(vmlinux()))
    struct.pack_into("<I", data, at, value)
    error = refused(bytes(data))
    assert (error.field, error.offset) == (field, at)


def test_header_cut_off() -> None:
    assert refused(make_bzimage(vmlinux())[:0x220]).field == "setup_header"


def test_declared_size_is_bounded_before_anything_is_unpacked() -> None:
    data = make_bzimage(vmlinux(), "xz")
    assert refused(data[:-4] + struct.pack("<I", UNPACKED_LIMIT + 1)).field == "payload size"


def bomb(packer: str) -> bytes:
    """A payload that unpacks to far more than the 1 MiB it declares, and begins like a kernel."""
    body = b"\x7fELF" + bytes(64 << 20)
    declared = struct.pack("<I", 1 << 20)
    if packer == "gzip":
        engine = zlib.compressobj(9, wbits=31)
        return engine.compress(body) + engine.flush()[:-4] + declared
    if packer == "xz":
        return lzma.compress(body, preset=0) + declared
    if packer == "zstd":
        return zstandard.compress(body) + declared
    block = lz4.block.compress(body[: 8 << 20], store_size=False)
    return b"\x02\x21\x4c\x18" + (struct.pack("<I", len(block)) + block) * 8 + declared


@pytest.mark.parametrize("packer", ["gzip", "xz", "zstd", "lz4"])
def test_bomb_is_stopped_at_its_declared_size(packer: str) -> None:
    error = refused(wrap_payload(bomb(packer)))
    assert error.field == "payload"


def test_bomb_without_declared_size_is_stopped_by_its_first_bytes() -> None:
    engine = zlib.compressobj(9, wbits=31)
    body = engine.compress(bytes(64 << 20)) + engine.flush()
    assert "begins 00 00 00 00" in refused(wrap_payload(body, protocol=0x204)).message


def test_many_short_lz4_blocks_are_not_read() -> None:
    block = lz4.block.compress(b"\x7fELF", store_size=False)
    payload = b"\x02\x21\x4c\x18" + (struct.pack("<I", len(block)) + block) * 200_000 + struct.pack("<I", 8 << 20)
    assert refused(wrap_payload(payload)).field == "payload size"


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", Path("/dev/null"), Path("\0")):
        with pytest.raises(ImageError) as caught:
            load_image(path)
        assert caught.value.path == str(path)
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    with pytest.raises(ImageError, match="neither a bzImage nor an ELF"):
        load_image(empty)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data(), packer=st.sampled_from(sorted(PACKERS)))
def test_mutated_bzimage_is_read_or_refused(data: st.DataObject, packer: str) -> None:
    raw = bytearray(make_bzimage(vmlinux(), packer))
    where = st.one_of(st.integers(0x1F0, 0x260), st.integers(PAYLOAD_AT, len(raw) - 1))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(where)] = data.draw(st.integers(0, 255))
    start = time.process_time()
    try:
        image = load_image(bytes(raw), "mutated")
        _ = image.symbols
    except ImageError as failure:
        refusal = failure
    else:
        return
    assert refusal.path == "mutated"
    assert time.process_time() - start < 2
