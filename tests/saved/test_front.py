"""The front of a saved session's file: lengths, heads and holes that cannot be."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import xxhash

from pvops_core.saved import container
from pvops_core.saved.errors import SavedError
from pvops_core.saved.front import MAGIC, MEMORY_LIMIT, Head
from pvops_core.x86 import PAGE
from tests.saved.files import KEY, MAKING, STATES

if TYPE_CHECKING:
    from pathlib import Path


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
