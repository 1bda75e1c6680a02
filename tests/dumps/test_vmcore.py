"""The file of a dump: an ELF core whose memory has holes where it is zero."""

from __future__ import annotations

import struct
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.dumps.notes import note
from pvops_core.dumps.vmcore import MOST, Stretch, used, write
from pvops_core.x86 import PAGE

BASE = 0xFFFF888000000000


def written(path: Path, notes: bytes, stretches: list[Stretch], pieces: list[tuple[int, bytes]]) -> ELFFile:
    with path.open("wb") as file:
        write(file.fileno(), notes, stretches, [(at, np.frombuffer(data, np.uint8)) for at, data in pieces])
    return ELFFile(BytesIO(path.read_bytes()))


def test_a_core_shows_memory_by_both_addresses(tmp_path: Path) -> None:
    data = b"\1" * PAGE + bytes(PAGE) + b"\2" * PAGE
    stretches = [Stretch(0xFFFFFFFF81002000, 0x2000, PAGE), Stretch(BASE, 0, 0x10000)]
    core = written(tmp_path / "core", note(b"VMCOREINFO", 0, b"A=1\n"), stretches, [(0x1000, data)])
    assert (core["e_type"], core["e_machine"], core["e_phnum"]) == ("ET_CORE", "EM_X86_64", 3)
    notes, text, memory = core.iter_segments()
    (found,) = notes.iter_notes()
    assert (found["n_name"], bytes(found["n_descdata"])) == ("VMCOREINFO", b"A=1\n")
    assert (text["p_vaddr"], text["p_paddr"], text.data()) == (0xFFFFFFFF81002000, 0x2000, bytes(PAGE))
    assert (memory["p_vaddr"], memory["p_paddr"]) == (BASE, 0)
    assert memory.data() == bytes(0x1000) + data + bytes(0x10000 - 0x4000)


def test_zero_pages_are_holes(tmp_path: Path) -> None:
    size = 64 << 20
    written(tmp_path / "core", b"", [Stretch(BASE, 0, size)], [(0, bytes(1 << 20) + b"\1" * PAGE)])
    told = (tmp_path / "core").stat()
    assert told.st_size >= size
    assert told.st_blocks * 512 < 1 << 20


def test_memory_in_more_pieces_than_a_header_counts_is_shown_whole(tmp_path: Path) -> None:
    """e_phnum has 16 bits; what is between the pieces reads as zeros."""
    stretches = [Stretch(BASE + 2 * PAGE * each, 2 * PAGE * each, PAGE) for each in range(MOST + 1)]
    with (tmp_path / "core").open("wb") as file:
        write(file.fileno(), b"", stretches, [])
    with (tmp_path / "core").open("rb") as file:
        core = ELFFile(file)
        _notes, memory = core.iter_segments()
        assert (memory["p_vaddr"], memory["p_memsz"]) == (BASE, (2 * MOST + 1) * PAGE)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_runs_are_the_pages_that_are_not_zero(held: list[bool]) -> None:
    data = np.zeros(len(held) * PAGE, np.uint8)
    for page, one in enumerate(held):
        data[page * PAGE + 7] = one
    runs = list(used(data))
    assert sorted(page for first, last in runs for page in range(first // PAGE, last // PAGE)) == [
        page for page, one in enumerate(held) if one
    ]
    assert all(before[1] < after[0] for before, after in pairwise(runs))


def test_notes_are_filled_up() -> None:
    assert note(b"CORE", 1, b"abc") == struct.pack("<III", 5, 3, 1) + b"CORE\0\0\0\0abc\0"
