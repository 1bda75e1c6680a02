"""Records: what processes tell each other and what is written as JSON, each declared once.

A record's class is all that is said of it: the types and bounds of its fields are their annotations, what they mean
stands in its docstring under ``Attributes:``. msgspec holds what is read against it and names the field that is wrong;
``docs/tools/schema.py`` makes the JSON Schema of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta

FLAT: Final = Meta(extra={"flat": True})
"""The fields of this record stand in the document in its place."""
INNER: Final = Meta(extra={"inner": True})
"""Goes between processes, but into no document."""
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
MaybeSha256 = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
"""Empty where there is none."""
Seconds = Annotated[float, Meta(ge=0, extra={"rounded": True})]
"""Of wall time; documents say milliseconds."""

R = TypeVar("R")


class JsonRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is declared so. A field that is not always there has :data:`UNSET` for its default."""


def line(of: object) -> bytes:
    """A record, or anything made of records, as one line for another process."""
    return json.dumps(msgspec.to_builtins(of)).encode() + b"\n"


def read(text: bytes, kind: type[R]) -> R:
    """The record that a :func:`line` was made of.

    Raises:
        ValueError: it is no JSON, or not such a record; the message names the field (``$.cell.seed``).
        RecursionError: it is nested too deep.
    """
    return msgspec.convert(json.loads(text), kind)


def checked(record: R) -> R:
    """A record that holds what it declares, whoever gave it that.

    Raises:
        ValueError: it does not; the message names the field.
    """
    return msgspec.convert(msgspec.to_builtins(record), type(record))


def like(thing: object, kind: type[R]) -> R:
    """A record with what a thing has under the names of its fields."""
    return msgspec.convert(thing, kind, from_attributes=True)


def document(value: object) -> Any:  # noqa: ANN401 - what a JSON writer takes
    """What a record, or anything made of records, is in JSON."""
    match value:
        case JsonRecord():
            return _fields_of(value)
        case Mapping():
            return {key: document(each) for key, each in value.items()}
        case list() | tuple():
            return [document(each) for each in value]
        case Enum():
            return value.value
    return value


def _fields_of(record: JsonRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, written, marks in marked(type(record)):
        value = getattr(record, name)
        if value is UNSET or "inner" in marks:
            continue
        if "flat" in marks:
            found |= document(value)
        else:
            found[written] = round(value, 3) if "rounded" in marks else document(value)
    return found


@cache
def marked(kind: type[JsonRecord]) -> tuple[tuple[str, str, frozenset[str]], ...]:
    """The fields of a record in order: name, name in JSON, ``flat`` or ``inner`` where it is marked so."""
    found = []
    for each in msgspec.structs.fields(kind):
        metas = getattr(each.type, "__metadata__", ())
        found.append((each.name, each.encode_name, frozenset(mark for meta in metas for mark in meta.extra or ())))
    return tuple(found)
