from __future__ import annotations

import io
import struct
import time

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.images.elf import SECTION_LIMIT
from pvops_core.testing.images import ElfBuilder


def small(bits: int = 64) -> ElfBuilder:
    builder = ElfBuilder(bits, base=0xFFFFFFFF81000000 if bits == 64 else 0xC1000000)
    text = builder.text(".text", b"\x90" * 64)
    builder.section(".rodata", b"Linux version 6.1.0-small (someone) #1\n\0" + bytes(32))
    builder.notes(("Xen", 6, b"linux\0"), ("GNU", 3, b"\x01" * 20))
    builder.symbol("_text", text)
    builder.symbol("local", text + 16, is_global=False)
    builder.symbol("twin", text + 16)
    return builder


@pytest.mark.parametrize("bits", [32, 64])
def test_reads_what_was_written(bits: int) -> None:
    data = small(bits).build()
    image = load_image(data, "small")
    assert image.machine == {32: "i386", 64: "x86_64"}[bits]
    assert image.release == "6.1.0-small"
    assert [(note.owner, note.type) for note in image.notes] == [("Xen", 6), ("GNU", 3)]
    base = image.symbols["_text"]
    assert image.symbol_at(base + 20) == ("local", 4)
    assert image.symbol_at(base - 1) is None
    assert image.read(base, 64) == b"\x90" * 64
    assert image.data[image.offset_of(base)] == 0x90
    # The builder itself is judged by another reader.
    assert [section.name for section in ELFFile(io.BytesIO(data)).iter_sections()] == [s.name for s in image.sections]


def test_global_symbol_wins_over_local_of_the_same_name() -> None:
    builder = small()
    builder.symbol("same", 0xFFFFFFFF81000001, is_global=False)
    builder.symbol("same", 0xFFFFFFFF81000002)
    assert load_image(builder.build()).symbols["same"] == 0xFFFFFFFF81000002


def test_memory_behind_the_file_part_of_a_segment_is_zero() -> None:
    data = bytearray(small().build())
    # p_memsz of the first segment
    struct.pack_into("<Q", data, 64 + 40, 0x800)
    image = load_image(bytes(data))
    assert image.read(image.symbols["_text"] + 60, 8) == b"\x90" * 4 + bytes(4)
    with pytest.raises(ImageError, match="no segment"):
        image.read(image.symbols["_text"] + 0x7FC, 8)
    with pytest.raises(ImageError, match="no segment"):
        image.offset_of(image.symbols["_text"] + 64)


E64 = {"class": 4, "data": 5, "type": 16, "machine": 18, "phoff": 32, "shoff": 40, "phentsize": 54, "phnum": 56,
       "shentsize": 58, "shnum": 60, "shstrndx": 62}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "form", "value", "named"),
    [
        ("class", "B", 9, "e_ident[EI_CLASS]"),
        ("class", "B", 1, "e_machine|EI_CLASS|e_type"),
        ("data", "B", 2, "e_ident[EI_DATA]"),
        ("type", "H", 1, "e_type"),
        ("machine", "H", 183, "e_machine"),
        ("phoff", "Q", 1 << 60, "e_phoff"),
        ("shoff", "Q", 1 << 63, "e_shoff"),
        ("phentsize", "H", 0, "e_phentsize"),
        ("shentsize", "H", 3, "e_shentsize"),
        ("shnum", "H", 0xFFFF, "e_shnum"),
        ("phnum", "H", 0xFFFF, "e_phnum"),
        ("phnum", "H", 0, "e_phoff"),
        ("shstrndx", "H", 500, "e_shstrndx"),
    ],
)
def test_bad_header_field_is_named(field: str, form: str, value: int, named: str) -> None:
    data = bytearray(small().build())
    struct.pack_into(f"<{form}", data, E64[field], value)
    with pytest.raises(ImageError) as caught:
        load_image(bytes(data), "bad.elf")
    assert any(name in caught.value.field for name in named.split("|"))
    assert caught.value.path == "bad.elf"
    assert caught.value.offset is not None


@pytest.mark.parametrize(
    ("member", "value", "named"),
    [
        (8, 1 << 62, "segment[0] p_filesz"),
        (32, 1 << 40, "segment[0] p_filesz"),
        (40, 1, "segment[0] p_memsz"),
        (40, 1 << 63, "segment[0] p_memsz"),
        (16, 0xFFFFFFFF81001000, "segment[1] p_vaddr"),
    ],
)
def test_bad_segment_is_named(member: int, value: int, named: str) -> None:
    data = bytearray(small().build())
    struct.pack_into("<Q", data, 64 + member, value)
    with pytest.raises(ImageError) as caught:
        load_image(bytes(data))
    assert caught.value.field == named


def test_bad_section_is_named() -> None:
    data = bytearray(small().build())
    (table,) = struct.unpack_from("<Q", data, 40)
    for member, form, value, named in (
        (32, "Q", 1 << 50, "section[2] sh_size"),
        (0, "I", 1 << 30, "section[2] sh_name"),
    ):
        broken = bytearray(data)
        struct.pack_into(f"<{form}", broken, table + 2 * 64 + member, value)
        with pytest.raises(ImageError) as caught:
            load_image(bytes(broken))
        assert caught.value.field == named
        assert caught.value.offset == table + 2 * 64


def test_too_many_sections_are_refused_before_they_are_read() -> None:
    data = bytearray(small().build())
    table = len(data)
    data += bytes(64 * (SECTION_LIMIT + 1))
    struct.pack_into("<Q", data, 40, table)
    struct.pack_into("<H", data, 60, SECTION_LIMIT + 1)
    with pytest.raises(ImageError) as caught:
        load_image(bytes(data))
    assert caught.value.field == "e_shnum"


def test_symbol_name_without_end_is_refused() -> None:
    builder = small()
    builder.symbol("n" * 5000, 0xFFFFFFFF81000000)
    image = load_image(builder.build())
    with pytest.raises(ImageError) as caught:
        _ = image.symbols
    assert "symtab" in caught.value.field


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data(), bits=st.sampled_from([32, 64]))
def test_mutated_elf_is_read_or_refused(data: st.DataObject, bits: int) -> None:
    raw = bytearray(small(bits).build())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw)))) :]
    start = time.process_time()
    try:
        image = load_image(bytes(raw), "mutated")
        _ = image.symbols, image.paravirt, image.altinstructions
    except ImageError as failure:
        refusal = failure
    else:
        return
    assert refusal.path == "mutated"
    assert refusal.message
    assert time.process_time() - start < 2


@settings(max_examples=60, deadline=None, derandomize=True)
@given(raw=st.binary(max_size=300))
def test_noise_behind_the_magic_is_refused(raw: bytes) -> None:
    with pytest.raises(ImageError):
        load_image(b"\x7fELF" + raw)


@pytest.mark.parametrize(("name_size", "data_size", "good"), [(4, 12, True), (40, 0, False), (16, 4, False)])
def test_only_the_last_note_s_data_may_be_cut_short(name_size: int, data_size: int, *, good: bool) -> None:
    builder = ElfBuilder(32, 0x1000)
    builder.notes(("Xen", 9, b"yes\0"))
    image = bytearray(builder.build())
    at = image.index(struct.pack("<III", 4, 4, 9) + b"Xen\0yes\0")
    struct.pack_into("<II", image, at, name_size, data_size)
    if good:
        assert [(note.owner, note.data) for note in load_image(bytes(image)).notes] == [("Xen", b"yes\0")]
    else:
        with pytest.raises(ImageError, match="past the notes' end"):
            load_image(bytes(image))
