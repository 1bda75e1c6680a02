"""Files of saved sessions: whole, damaged, hostile."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xxhash

from pvops_core.machine.memory import MemorySnapshot
from pvops_core.saved import container
from pvops_core.saved.errors import SavedError
from pvops_core.saved.front import MAGIC, MEMORY_LIMIT, Head, Making, read_head
from pvops_core.saved.key import Key
from pvops_core.x86 import PAGE

DAMAGED = int(os.environ.get("PVOPS_DAMAGED_FILES", "300"))
KEY = Key(
    "kernel",
    "ab",
    "",
    "quiet",
    ("native",),
    {"cpu": "max"},
    "x86_64",
    1,
    64 * PAGE,
    0,
    9,
    counted=False,
    tool_frames=0,
    engine="engine",
    sources={},
)
MAKING = Making("/boot/vmlinuz", "", {}, 64 * PAGE)
STATES = bytes(range(256)) * 20


def memory() -> np.ndarray[Any, np.dtype[np.uint8]]:
    array = np.zeros(64 * PAGE, np.uint8)
    array[0] = 1
    array[5 * PAGE : 7 * PAGE] = np.arange(2 * PAGE) % 251
    array[-1] = 7
    return array


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


@pytest.mark.parametrize("path", ["nowhere", ".", "/dev/null", "a\0b"])
def test_what_is_no_file_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(SavedError, match=r"cannot be read|no regular|not a regular"):
        container.read(tmp_path / path)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SavedError, match="not a regular file"):
        container.read(tmp_path / "pipe")


def forge(path: Path, said: object, size: int = 64 * PAGE, **lengths: int) -> None:
    """A file with right digests that says what somebody wants it to say."""
    packed = msgspec.msgpack.encode(said)
    begin = lengths.get("begin", 56 + len(packed) + len(STATES) + PAGE - 1 & -PAGE)
    heads, states = lengths.get("head", len(packed)), lengths.get("states", len(STATES))
    prelude = struct.pack("<8sIIQQQ", MAGIC, 1, heads, states, begin, size)
    digest = xxhash.xxh3_128(prelude + packed + STATES).digest()
    path.write_bytes(prelude + digest + packed + STATES)
    os.truncate(path, lengths.get("total", begin + size))


@pytest.mark.parametrize(
    "lengths",
    [
        {"size": 0},
        {"size": PAGE + 1},
        {"size": 1 << 62},
        {"head": 1 << 31, "total": 1 << 33},
        {"states": 1 << 62},
        {"states": (1 << 64) - 1},
        {"begin": PAGE * 900},
        {"begin": 0},
    ],
)
def test_lengths_that_cannot_be_are_refused(tmp_path: Path, lengths: dict[str, int]) -> None:
    forge(tmp_path / "forged", {}, **{"total": 1 << 20} | lengths)
    with pytest.raises(SavedError, match=r"the most is|cannot be at|bytes long"):
        container.read(tmp_path / "forged")


def plain(**changed: object) -> dict[str, Any]:
    head = msgspec.to_builtins(Head(KEY, MAKING, "init", 0, 5, (), xxhash.xxh3_128().digest()), builtin_types=(bytes,))
    return {**head, **changed}


def test_a_forged_file_that_says_nothing_wrong_is_read(tmp_path: Path) -> None:
    forge(tmp_path / "forged", plain())
    assert container.read(tmp_path / "forged").memory.read(0, PAGE) == bytes(PAGE)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"key": None}, r"\$.key"),
        ({"key": {**msgspec.to_builtins(KEY), "more": 1}}, "unknown field `more`"),
        ({"key": {**msgspec.to_builtins(KEY), "cpus": "1"}}, r"\$.key.cpus"),
        ({"vcpu": -1}, r"\$.vcpu"),
        ({"ns": 1.5}, r"\$.ns"),
        ({"runs": [[1]]}, r"\$.runs"),
        ({"runs": [[-1, 2]]}, "not where pages may be"),
        ({"runs": [[0, 65]]}, "not where pages may be"),
        ({"runs": [[1 << 62, 1]]}, "not where pages may be"),
        ({"runs": [[3, 0]]}, "not where pages may be"),
        ({"runs": [[3, 2], [4, 1]]}, "not where pages may be"),
        ({"runs": [[3, 2]]}, "is to be there and is a hole"),
        ({"memory": b"x"}, "digest"),
    ],
)
def test_heads_that_cannot_be_are_refused(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    forge(tmp_path / "forged", plain(**changed))
    with pytest.raises(SavedError, match=told):
        container.read(tmp_path / "forged")


@pytest.mark.parametrize("head", [[], 5, None, {}, b"x", {"key": {}}])
def test_heads_that_are_none_are_refused(tmp_path: Path, head: object) -> None:
    forge(tmp_path / "forged", head)
    with pytest.raises(SavedError, match="does not say what it is"):
        container.read(tmp_path / "forged")


def test_memory_of_holes_alone_takes_no_time(tmp_path: Path) -> None:
    """64 GiB that a file of a few bytes says it has."""
    forge(tmp_path / "forged", plain(), size=MEMORY_LIMIT)
    assert container.read(tmp_path / "forged").memory.size == MEMORY_LIMIT
