"""The JSON Schemas of what the commands write, of the records that declare it.

``python docs/tools/schema.py [FOLDER]`` writes one file for each document to a folder, ``schema/`` unless given.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import msgspec

from pvops_core.backends.findings import BackendsResult
from pvops_core.cli.new_backend import NewBackend
from pvops_core.compare.document import CompareResult
from pvops_core.compare.exploring import Exploration
from pvops_core.guest.debugfile.findings import SymbolsResult
from pvops_core.guests.linux.initrd.findings import InitrdResult
from pvops_core.livepatch.control.findings import LivepatchRun, PayloadShown, VerbResult
from pvops_core.patching.findings import PatchResult, SitesResult
from pvops_core.prompt.findings import ShellResult
from pvops_core.recording.findings import RecordResult
from pvops_core.records import JsonRecord, marked
from pvops_core.runs.document import BootResult, BootsResult
from pvops_core.runs.observation import Observation
from pvops_core.saved.findings import CacheCleared, CacheList
from pvops_core.scenarios.document import ScenarioList, ScenarioResult
from pvops_core.study.diff import StudyDiff
from pvops_core.study.document import StudyMerged, StudyResult, StudyStatus
from pvops_core.testing.proofs.document import ProveResult

FOLDER: Final = Path(__file__).parents[2] / "schema"
_DOCUMENTS: Final[Mapping[str, tuple[str, tuple[type[JsonRecord], ...]]]] = {
    "run": ("One run of the built-in guest.", (Observation,)),
    "sites": ("", (SitesResult,)),
    "patch": ("", (PatchResult,)),
    "backends": ("", (BackendsResult,)),
    "boot": ("One boot of a real kernel: a run, and the kernel's image.", (BootResult,)),
    "boots": ("", (BootsResult,)),
    "compare": ("", (CompareResult,)),
    "livepatch": (
        "`build` and `show`: a payload; `run`: what the commands did; the verbs for a running machine: what one did.",
        (PayloadShown, LivepatchRun, VerbResult),
    ),
    "explore": ("`pvops run --explore`.", (Exploration,)),
    "new-backend": ("", (NewBackend,)),
    "cache": ("`list`: the booted kernels that are kept; `clear`: what was taken away.", (CacheList, CacheCleared)),
    "prove": ("", (ProveResult,)),
    "shell": ("", (ShellResult,)),
    "record": ("", (RecordResult,)),
    "initrd": ("", (InitrdResult,)),
    "symbols": ("", (SymbolsResult,)),
    "study": (
        "A study's runs and what they came to; `diff`: what changed between two.",
        (StudyResult, StudyDiff, StudyStatus, StudyMerged),
    ),
    "scenario": (
        "A failure of the past, played again; without a name the list of them.",
        (ScenarioList, ScenarioResult),
    ),
}
"""Document -> what it is, unless its record says it, and its record; of several a document is one."""
Schema = dict[str, Any]


def schemas() -> dict[str, Schema]:
    """Document -> its schema. What several documents have is defined in the first of them."""
    found: dict[str, Schema] = {}
    homes: dict[str, str] = {}
    for verb, (what, kinds) in _DOCUMENTS.items():
        own = {name: kind for kind in kinds for name, kind in _below(kind) if name not in homes}
        homes |= dict.fromkeys(own, verb)
        found[verb] = _document(verb, what, kinds, {_name(kind): _record(kind) for kind in own.values()})
    return {verb: _referring(schema, verb, homes) for verb, schema in found.items()}


def _referring(schema: Schema, here: str, homes: Mapping[str, str]) -> Schema:
    """The schema with each reference leading to the document that defines the record."""

    def reference(match: re.Match[str]) -> str:
        home = homes[match[1]]
        return f'"{"" if home == here else f"urn:pvops:schema:{home}:1"}#/$defs/{_snake(match[1])}"'

    made: Schema = json.loads(re.sub(r'"#/\$defs/(\w+)"', reference, json.dumps(schema)))
    return made


def _document(verb: str, what: str, kinds: tuple[type[JsonRecord], ...], definitions: Mapping[str, Schema]) -> Schema:
    choices = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:pvops:schema:{verb}:1",
        "title": f"pvops {verb}",
        "description": what or _said(kinds[0])[0],
        "allOf" if len(choices) == 1 else "oneOf": choices,
        "type": "object",
        "properties": {"schema": {"const": f"pvops.{verb}/1", "description": "Name and version of this schema."}},
        "required": ["schema"],
        "$defs": dict(definitions),
    }


def _below(kind: type[JsonRecord]) -> Iterator[tuple[str, type[JsonRecord]]]:
    """A record and all that are in it, each once, in order."""
    seen: dict[str, type[JsonRecord]] = {kind.__name__: kind}
    for hint in get_type_hints(kind).values():
        for each in _records_in(hint):
            seen |= dict(_below(each))
    yield from seen.items()


def _records_in(hint: object) -> Iterator[type[JsonRecord]]:
    if inspect.isclass(hint) and issubclass(hint, JsonRecord):
        yield hint
    for each in get_args(hint):
        yield from _records_in(each)


def _record(kind: type[JsonRecord]) -> Schema:
    """The schema of one record; what is flat in it stands in ``allOf``."""
    _, components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    made = components[kind.__name__]["properties"]
    what, texts = _said(kind)
    optional = {each.name for each in msgspec.structs.fields(kind) if each.default is msgspec.UNSET}
    schema: Schema = {"type": "object", "description": what, "allOf": [], "properties": {}, "required": []}
    for name, written, marks in marked(kind):
        place = _tidy(made[written], components)
        if "flat" in marks:
            schema["allOf"].append(place)
        elif "inner" not in marks:
            schema["properties"][written] = {"description": texts[name], **place}
            schema["required"] += [] if name in optional else [written]
    return schema if schema["allOf"] else {key: value for key, value in schema.items() if key != "allOf"}


def _tidy(place: Any, components: Mapping[str, Schema]) -> Any:  # noqa: ANN401 - any part of a schema
    """Without defaults, which nobody leaves out, and with the members of enums where they are meant."""
    if isinstance(place, list):
        return [_tidy(each, components) for each in place]
    if not isinstance(place, dict):
        return place
    meant = components.get(place.get("$ref", "").rpartition("/")[2], {})
    if "enum" in meant:
        return {"enum": meant["enum"]}
    if "anyOf" in place:  # versions of msgspec differ in the order
        place = {**place, "anyOf": sorted(place["anyOf"], key=lambda each: each.get("type") == "null")}
    if place.get("type") == "object" and "additionalProperties" not in place:
        place = {**place, "additionalProperties": {}}  # of Any, which msgspec leaves out
    return {key: _tidy(value, components) for key, value in place.items() if key != "default"}


def _said(kind: type[JsonRecord]) -> tuple[str, dict[str, str]]:
    """What a record's docstring says of it, and of each field, those of its bases too."""
    texts: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if issubclass(each, JsonRecord) and each is not JsonRecord:
            _, _, fields = inspect.getdoc(each).partition("\nAttributes:\n")  # type: ignore[union-attr]  # all have one
            rows = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", fields, re.MULTILINE)
            texts |= {name: " ".join(text.split()) for name, text in rows}
    first = inspect.getdoc(kind).partition("\nAttributes:\n")[0]  # type: ignore[union-attr]
    return " ".join(first.split()), texts


def _name(kind: type[JsonRecord]) -> str:
    return _snake(kind.__name__)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    for document, schema in schemas().items():
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        (folder / f"pvops.{document}-1.json").write_text(text, encoding="utf-8")
