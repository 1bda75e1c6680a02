"""Bytes of a file that are read when somebody looks at them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies

from pvops_core.mapped import MappedBytes, mapped
from pvops_core.x86 import PAGE

CONTENTS = bytes(range(256)) * 20


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> MappedBytes:
    """Bytes behind a page of something else."""
    file: Path = tmp_path_factory.mktemp("mapped") / "file"
    file.write_bytes(b"x" * PAGE + CONTENTS)
    with file.open("rb") as opened:
        return mapped(opened.fileno(), PAGE)


@given(strategies.integers(0, len(CONTENTS)), strategies.integers(0, 40))
def test_it_answers_as_bytes_do(there: MappedBytes, start: int, length: int) -> None:
    part = CONTENTS[start : start + length]
    assert there[start : start + length] == part
    assert type(there[start : start + length]) is bytes
    assert part in there
    assert there.find(part) == CONTENTS.find(part)
    assert there.startswith(part) == CONTENTS.startswith(part)
    assert there.count(b"\7" + part[:1]) == CONTENTS.count(b"\7" + part[:1])
    assert bytes(memoryview(there)[start:]) == CONTENTS[start:]


def test_it_equals_what_it_holds(there: MappedBytes) -> None:
    assert there == CONTENTS
    assert there != CONTENTS[1:]
    assert hash(there) == hash(CONTENTS)
    assert 255 in there
    assert "text" not in there
    assert b"1" + there == b"1" + CONTENTS
    assert re.search(rb"\x07\x08", there)
    assert not hasattr(there, "nothing")


def test_nobody_can_write_it(there: MappedBytes) -> None:
    with pytest.raises(TypeError):
        there[0] = 1


def test_the_end_of_a_file_is_no_place(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * PAGE)
    with file.open("rb") as opened, pytest.raises((OSError, ValueError)):
        mapped(opened.fileno(), PAGE)
