from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

import pytest
from msgspec import UNSET, UnsetType, field

from pvops_core.records import FLAT, INNER, Count, JsonRecord, MaybeSha256, Seconds, checked, document, like, line, read


class Leaf(enum.Enum):
    GREEN = "green"


class Pot(JsonRecord, frozen=True):
    size: Count
    of: str = field(name="from")


class Tea(JsonRecord, frozen=True):
    pot: Annotated[Pot, FLAT]
    cups: Mapping[str, Count]
    leaf: Leaf = Leaf.GREEN
    drinkers: tuple[str, ...] = ()
    took_s: Seconds = 0.0
    secret: Annotated[str, INNER] = ""
    note: str | UnsetType = UNSET
    hash: MaybeSha256 = ""


TEA = Tea(Pot(3, "tin"), {"a": 1}, drinkers=("b", "c"), took_s=1.23456, secret="x")


def test_a_document_is_flat_where_it_is_declared_and_leaves_out_what_goes_into_none() -> None:
    assert document([TEA]) == [
        {
            "size": 3,
            "from": "tin",
            "cups": {"a": 1},
            "leaf": "green",
            "drinkers": ["b", "c"],
            "took_s": 1.235,
            "hash": "",
        }
    ]


def test_a_line_is_read_back_whole() -> None:
    odd = Tea(Pot(1 << 70, "\udc80"), {"\udc80": 1 << 64}, note="")  # beyond machine words; what is no UTF-8
    for tea in (TEA, odd):
        assert read(line(tea), Tea) == tea
        assert checked(tea) == tea


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"pot": {"size": -1, "from": ""}, "cups": {}}, r"`int` >= 0 - at `\$.pot.size`"),
        ({"pot": {"size": True, "from": ""}, "cups": {}}, r"got `bool` - at `\$.pot.size`"),
        ({"pot": {"size": 1, "from": ""}, "cups": {"a": "many"}}, r"got `str` - at `\$.cups\[...\]`"),
        ({"pot": {"size": 1, "from": ""}, "cups": {}, "leaf": "red"}, r"'red' - at `\$.leaf`"),
        ({"pot": {"size": 1, "from": ""}, "cups": {}, "hash": "no"}, r"\$.hash"),
        ({"pot": {"size": 1, "from": ""}, "cups": {}, "more": 1}, "unknown field `more`"),
        ({"cups": {}}, "missing required field `pot`"),
        ([], "Expected `object`"),
    ],
)
def test_what_is_no_such_record_is_refused_at_its_place(wrong: object, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        read(line(wrong), Tea)


def test_a_record_with_anything_in_it_is_noticed() -> None:
    with pytest.raises(ValueError, match=r"got `int` - at `\$.drinkers\[0\]`"):
        checked(Tea(Pot(1, ""), {}, drinkers=(3,)))  # type: ignore[arg-type]


def test_a_record_is_made_of_what_has_its_fields() -> None:
    class Kettle:
        size, of, lid = 2, "shelf", True

    assert like(Kettle(), Renamed) == Renamed(2)


class Renamed(JsonRecord, frozen=True):
    size: Count
