"""Files of saved sessions: whole, damaged, hostile."""

from __future__ import annotations

import os
import random
import struct
from typing import TYPE_CHECKING

import pytest

from pvops_core.machine.memory import MemorySnapshot
from pvops_core.saved import container
from pvops_core.saved.errors import SavedError
from pvops_core.saved.front import read_head
from pvops_core.x86 import PAGE
from tests.saved.files import KEY, MAKING, STATES, memory

if TYPE_CHECKING:
    from pathlib import Path

DAMAGED = int(os.environ.get("PVOPS_DAMAGED_FILES", "300"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    with path.open("wb") as file:
        container.write(file.fileno(), (KEY, MAKING, "init", 0, 5), STATES, MemorySnapshot.of(memory()))
    return path


def test_what_was_written_is_read(saved: Path) -> None:
    opened = container.read(saved)
    assert opened.states == STATES
    assert opened.head == read_head(saved)
    assert (opened.head.key, opened.head.origin, opened.head.place, opened.head.ns) == (KEY, MAKING, "init", 5)
    assert opened.head.runs == ((0, 1), (5, 2), (63, 1))
    assert opened.memory.read(0, 64 * PAGE) == memory().tobytes()


def test_holes_stay_holes(saved: Path) -> None:
    assert saved.stat().st_blocks * 512 < 20 * PAGE < saved.stat().st_size


def test_a_copy_without_holes_is_read_as_well(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(saved.read_bytes())
    assert container.read(copy).memory.read(0, 64 * PAGE) == memory().tobytes()


def test_a_file_damaged_at_any_byte_is_refused(saved: Path) -> None:
    """As many as PVOPS_DAMAGED_FILES says: every byte of the beginning, then some of everywhere."""
    whole, chance = saved.read_bytes(), random.Random(17)
    begin = len(whole) - 64 * PAGE
    places = [*range(min(begin, DAMAGED // 2))]
    places += [chance.randrange(begin) for _ in range((DAMAGED - len(places)) // 2)]
    places += [chance.randrange(len(whole)) for _ in range(DAMAGED - len(places))]
    with saved.open("r+b", buffering=0) as file:
        for place in places:
            os.pwrite(file.fileno(), bytes((whole[place] ^ chance.randrange(1, 256),)), place)
            with pytest.raises(SavedError):
                container.read(saved)
            os.pwrite(file.fileno(), whole[place : place + 1], place)
    assert container.read(saved).states == STATES


@pytest.mark.parametrize("longer", [-64 * PAGE, -5, -1, 1, PAGE, 1 << 30])
def test_a_file_cut_or_lengthened_is_refused(saved: Path, longer: int) -> None:
    os.truncate(saved, saved.stat().st_size + longer)
    with pytest.raises(SavedError, match="bytes long and says"):
        container.read(saved)


@pytest.mark.parametrize("length", [0, 5, 8, 20, 55])
def test_a_beginning_is_refused(saved: Path, length: int) -> None:
    os.truncate(saved, length)
    with pytest.raises(SavedError, match=r"is no saved session|ends within"):
        container.read(saved)


def test_another_version_is_refused_with_both(saved: Path) -> None:
    with saved.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("<I", 7))
    with pytest.raises(SavedError, match="has format 7; this pvops reads format 1") as refused:
        container.read(saved)
    assert (refused.value.field, refused.value.saved, refused.value.here) == ("version", "7", "1")
