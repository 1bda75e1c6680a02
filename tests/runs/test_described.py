from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from pvops_core.runs.described import described, document, properties, sha256


@attrs.frozen
class Tea:
    cups: int = described("How many.", 0, at="counts.cups")
    of: Mapping[str, Mapping[str, int]] = described("Sorts.", dict)
    drinkers: tuple[str, ...] = described("Who.", (), converter=tuple)
    degrees: float = described("How hot.", 1.5, maximum=100)
    secret: str = described("Not for the document.", "", at="")
    odd: Mapping[str, Any] = described("More than its type says.", dict, by_hand=True)
    hash: str = sha256("Of the leaves.")


@pytest.mark.parametrize(
    "wrong",
    [
        {"cups": "1"},
        {"of": {"green": 1}},
        {"of": {"green": {"cups": "x"}}},
        {"of": {1: {}}},
        {"drinkers": [1]},
        {"degrees": "hot"},
        {"odd": []},
    ],
)
def test_a_field_is_what_its_annotation_says(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(TypeError, match=f"'{name}' must be "):
        Tea(**wrong)


def test_a_document_has_each_field_at_its_place() -> None:
    assert document(Tea(cups=2, drinkers=["a"], degrees=90, secret="x")) == {
        "counts": {"cups": 2},
        "of": {},
        "drinkers": ["a"],
        "degrees": 90,
        "odd": {},
        "hash": "",
    }


def test_a_schema_is_made_of_declarations_and_keeps_what_is_written_by_hand() -> None:
    made = properties(Tea, {"odd": {"type": "object", "description": "By hand."}, "other": {"type": "null"}})
    assert made["counts"]["properties"] == {"cups": {"description": "How many.", "type": "integer", "minimum": 0}}
    assert made["counts"]["required"] == ["cups"]
    assert made["of"]["additionalProperties"]["additionalProperties"] == {"type": "integer", "minimum": 0}
    assert made["drinkers"] == {"description": "Who.", "type": "array", "items": {"type": "string"}}
    assert made["degrees"] == {"description": "How hot.", "type": "number", "minimum": 0, "maximum": 100}
    assert made["odd"]["description"] == "By hand."
    assert "secret" not in made
    assert made["other"] == {"type": "null"}
    assert made["hash"]["pattern"] == "^([0-9a-f]{64})?$"
