"""Fields of a result that say what they are: so they are checked, put into JSON, and described in its schema.

A number that is added to a run's result is declared once, here with :func:`described`; the JSON of a run, its schema
(``docs/tools/schema.py``) and the reference page of that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final, get_args, get_origin, get_type_hints

import attrs

_AT: Final = "at"
_HASH: Final[dict[str, Any]] = {"pattern": "^([0-9a-f]{64})?$"}


def described(
    text: str,
    default: Any = attrs.NOTHING,  # noqa: ANN401
    *,
    at: str | None = None,
    converter: Callable[[Any], Any] | None = None,
    by_hand: bool = False,
    **schema: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 - as attrs.field: what the annotation says
    """An attrs field that is checked by its annotation.

    Args:
        text: what it says, for the schema.
        default: its default; a mapping or a list that is made anew for each is given as its type.
        at: where it stands in the document, parted by dots; its own name if not given, nowhere if empty.
        converter: as attrs has it.
        by_hand: what may stand in it is more than its type says and written in the schema itself.
        **schema: keywords of JSON Schema besides those that follow from its type.
    """
    if default in {dict, list}:
        default = attrs.Factory(default)
    metadata = {_AT: at, "text": text, "by_hand": by_hand, "schema": schema}
    return attrs.field(default=default, converter=converter, validator=_check, metadata=metadata)


def sha256(text: str) -> Any:  # noqa: ANN401 - as above
    """A field for a SHA-256 in hexadecimal digits, empty where there is none."""
    return described(text, "", **_HASH)


@cache
def _hints(kind: type[Any]) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _check(instance: Any, attribute: attrs.Attribute[Any], value: object) -> None:  # noqa: ANN401 - any result
    hint = _hints(type(instance))[attribute.name]  # type: ignore[arg-type]  # mypy thinks types have no hash
    if not _fits(value, hint):
        raise TypeError(f"{attribute.name!r} must be {hint}, not {value!r:.60}")


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - any type
    arguments = get_args(hint)
    if hint is Any:
        return True
    if get_origin(hint) is Mapping:
        key, item = arguments
        return isinstance(value, dict) and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(each, arguments[0]) for each in value)
    return isinstance(value, (int, float) if hint is float else hint)


def placed(kind: type) -> Iterator[tuple[attrs.Attribute[Any], tuple[str, ...]]]:
    """The fields that stand in the document, in order, each with its place there."""
    for field in attrs.fields(kind):
        at = field.metadata.get(_AT, "")
        if at != "":
            yield field, tuple((at or field.name).split("."))


def document(result: Any) -> dict[str, Any]:  # noqa: ANN401 - an attrs instance
    """The described fields of a result as a document."""
    found: dict[str, Any] = {}
    for field, (*folders, name) in placed(type(result)):
        place = found
        for folder in folders:
            place = place.setdefault(folder, {})
        value = getattr(result, field.name)
        place[name] = list(value) if isinstance(value, tuple) else value
    return found


def properties(kind: type, written: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of the document's JSON Schema.

    Args:
        kind: the class of the result.
        written: what the schema says by hand: of fields that are declared so, and of what no field is.
    """
    found = dict(written)
    for field, (*folders, name) in placed(kind):
        place = found
        for folder in folders:
            inside = place[folder] = {**place.get(folder, {"type": "object"})}
            place = inside["properties"] = {**inside.get("properties", {})}
            inside["required"] = [*dict.fromkeys((*inside.get("required", ()), name))]
        if not field.metadata["by_hand"]:
            place[name] = {"description": field.metadata["text"], **_schema(_hints(kind)[field.name])}
            place[name] |= field.metadata["schema"]
    return found


def _schema(hint: Any) -> dict[str, Any]:  # noqa: ANN401 - any type
    if hint is Any:
        return {}
    if get_origin(hint) is Mapping:
        return {"type": "object", "additionalProperties": _schema(get_args(hint)[1])}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    if hint in {int, float}:
        return {"type": "integer" if hint is int else "number", "minimum": 0}
    return {"type": "string"} if hint is str else {"enum": [member.value for member in hint]}
