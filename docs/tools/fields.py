"""The page of JSON fields, of the schemas: ``python docs/tools/fields.py > docs/reference/json.md``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
HEAD: Final = """# JSON

What `--json FILE` writes, made by `make reference` of the JSON Schemas in `schema/`. Every document names its schema,
`pvops.VERB/1`. Under one name fields are only ever added, so take what you know and pass over the rest. A field that
is not always there says so.
"""
Schema = Mapping[str, Any]


def page() -> str:
    """The page as Markdown."""
    documents = [_read(path) for path in sorted((ROOT / "schema").glob("*.json"))]
    return "\n".join([HEAD, *(line for document in documents for line in _document(document))])


def _read(path: Path) -> Schema:
    """A schema, with its references to itself written out like those to others."""
    text = path.read_text(encoding="utf-8")
    here: str = json.loads(text)["$id"]
    whole: Schema = json.loads(text.replace('"#/$defs/', f'"{here}#/$defs/'))
    return whole


def _document(document: Schema) -> Iterator[str]:
    verb = document["$id"].split(":")[3]
    yield f"## pvops.{verb}/1\n\n{document['description']} Schema: `schema/pvops.{verb}-1.json`.\n"
    parts = [part for key in ("allOf", "oneOf") for part in document.get(key, ())]
    yield from _table({**document, "properties": {k: v for k, v in document["properties"].items() if k != "schema"}})
    for part in parts:
        if "$ref" not in part:
            yield from _table(part)
        elif not part["$ref"].startswith(document["$id"]):
            yield f"All fields of {_link(part['$ref'])} are there too.\n"
    for name, part in document.get("$defs", {}).items():
        yield f"### {verb}: {name}\n\n{part['description']}\n"
        yield from _table(part)
        for other in part.get("allOf", ()):
            yield f"All fields of {_link(other['$ref'])} are there too.\n"


def _table(part: Schema) -> Iterator[str]:
    rows = [row for name, field in part.get("properties", {}).items() for row in _rows(name, field, part)]
    if rows:
        yield "\n".join(["| field | type | meaning |", "|---|---|---|", *rows]) + "\n"


def _rows(name: str, field: Schema, owner: Schema) -> Iterator[str]:
    """The row of a field, and of the fields of what it holds."""
    optional = "" if name.rpartition(".")[2].rstrip("[]") in owner.get("required", ()) else " Not always there."
    yield f"| `{name}` | {_type(field)} | {field.get('description', '')}{optional} |"
    for suffix, inner in (("", field), ("[]", field.get("items")), (".NAME", field.get("additionalProperties"))):
        for below, part in (inner or {}).get("properties", {}).items():
            yield from _rows(f"{name}{suffix}.{below}", part, inner or {})


def _type(field: Schema) -> str:
    if "$ref" in field:
        return _link(field["$ref"])
    if "enum" in field:
        return ", ".join("null" if word is None else f"`{word}`" for word in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    kind = field.get("type", "any")
    if kind == "array":
        items = field.get("prefixItems", [field["items"]])
        return f"list of {', '.join(_type(each) for each in items)}"
    if kind == "object" and "additionalProperties" in field:
        return f"name → {_type(field['additionalProperties'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _link(reference: str) -> str:
    """A link to the heading of what is referred to."""
    place, _, name = reference.partition("#/$defs/")
    return f"[{name}](#{place.split(':')[3]}-{name})"


if __name__ == "__main__":
    sys.stdout.write(page())
