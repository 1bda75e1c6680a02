"""Which places are inside of what changes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pvops_core.guest.stacks.spans import FEW, Spans, changing


def ranges(*pairs: tuple[int, int]) -> Spans:
    return Spans(np.array(pairs, dtype=np.uint64).reshape(-1, 2))


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 40])
def test_few_and_many_answer_alike(count: int) -> None:
    chance = random.Random(count)
    starts = chance.sample(range(0, 4000, 16), count)
    pairs = [(start, start + chance.randrange(1, 16)) for start in starts]
    spans = ranges(*pairs)
    words = np.arange(4100, dtype=np.uint64)
    wanted = [any(first < word < last for first, last in pairs) for word in range(4100)]
    assert spans.hits(words).tolist() == wanted
    assert [word in spans for word in range(4100)] == wanted


def test_nothing_is_inside_of_what_has_no_inside() -> None:
    assert not len(ranges((5, 5), (7, 8)))
    assert not ranges().hits(np.array([0, 5], dtype=np.uint64)).any()


def test_addresses_at_the_end_of_all() -> None:
    top = (1 << 64) - 1
    assert top - 1 in ranges((top - 8, top))
    assert top not in ranges((top - 8, top))


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("ff1511223344", "e81122334490", (0, 6)),
        ("e81122334490", "e81522334490", (1, 2)),
        ("5152ff15001122335a59", "5152e800112233905a59", (2, 8)),
        ("90909090", "90909090", None),
        ("9090", "90cc", (1, 2)),
    ],
)
def test_only_bytes_that_change_count(old: str, new: str, wanted: tuple[int, int] | None) -> None:
    rows = [np.frombuffer(bytes.fromhex(code), np.uint8).reshape(1, -1) for code in (old, new)]
    found = changing(np.array([0x1000], dtype=np.uint64), *rows).tolist()
    assert found == ([[0x1000 + wanted[0], 0x1000 + wanted[1]]] if wanted else [])


def test_the_start_of_code_that_goes_is_inside_but_nobody_returns_there() -> None:
    spans = Spans(np.array([[0x10, 0x18], [0x20, 0x28]], dtype=np.uint64), retired=[0x20])
    assert 0x10 not in spans
    assert 0x20 in spans
    assert 0x1F not in spans
    assert 0x20 not in spans.of_returns()
    assert 0x21 in spans.of_returns()


@pytest.mark.parametrize("count", [1, FEW + 3])
def test_spans_cover_those_within_one_of_them(count: int) -> None:
    spans = ranges(*((at * 16, at * 16 + 10) for at in range(count)))
    assert spans.covers(ranges((0, 10)))
    assert spans.covers(ranges((2, 5)))
    assert not spans.covers(ranges((2, 11)))
    assert not spans.covers(ranges((2, 5), (2000, 2005)))
    assert spans.covers(ranges())
