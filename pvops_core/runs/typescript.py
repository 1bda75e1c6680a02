"""A typescript: what was typed at a guest's console, and when, with all that decides the run besides.

A run made of it is the same run again, event log included. The file is JSON; docs/reference/typescripts.md has it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs
from msgspec import Meta, to_builtins
from msgspec.structs import replace

from pvops_core.backends.keyboard import Look, Stroke
from pvops_core.errors import ImageError, UsageError
from pvops_core.records import Count, JsonRecord, MaybeSha256, Sha256, read
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.orders import HookOrder, SwitchOrder

SCHEMA: Final = "pvops.typescript/1"
_DIGEST: Final = "sha256"
_MOST: Final = 256 << 20
Typed = Annotated[str, Meta(pattern="^[\\x00-\\xff]*$")]
"""Bytes, each as the character of its number."""


@attrs.define(eq=False)
class TypescriptError(ImageError):
    """A file is no typescript, or is damaged, or is of another guest than the one here.

    Attributes:
        recorded: what the file says of the field, where both have it.
        here: what that is here.
    """

    recorded: str = ""
    here: str = ""


class TypedEntry(JsonRecord, frozen=True):
    """What the guest was given at one moment.

    Attributes:
        ns: Virtual time in nanoseconds.
        look: How many times the run had looked for something typed before, at that virtual time.
        typed: The bytes, each as the character of its number.
        leaving: Why whoever typed ended the run there; empty if it went on.
    """

    ns: Count
    look: Count
    typed: Typed
    leaving: str = ""


class Typescript(JsonRecord, frozen=True):
    """A recorded run of a kernel.

    Attributes:
        schema: `pvops.typescript/1`.
        cell: What was run; its paths say where the files were.
        kernel: Hash of the unpacked image.
        initrd: Hash of the initial ramdisk; empty for none.
        ops: Patterns of the ops that the backend's own hooks served, none for all; null for no op.
        hooks: Python hooks in the kernel's ops.
        switches: Ops that were given another implementation.
        until: Console text at which the run was to end; empty for none.
        stop_at: Place at which it was to end; empty for none.
        versions: Software and its version; another may make another run.
        typed: What was typed, in order.
        outcome: How the run ended.
        virtual_ns: Virtual time at its end; 0 where that is not known.
        event_log_sha256: Hash of all that happened; empty where the run's process was lost.
    """

    schema: Literal["pvops.typescript/1"]
    cell: Cell
    kernel: Sha256
    initrd: MaybeSha256
    ops: tuple[str, ...] | None
    hooks: tuple[HookOrder, ...]
    switches: tuple[SwitchOrder, ...]
    until: str
    stop_at: str
    versions: Mapping[str, str]
    typed: tuple[TypedEntry, ...]
    outcome: Outcome
    virtual_ns: Count
    event_log_sha256: MaybeSha256

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        """What was typed, for a keyboard that types it again."""
        return tuple(Stroke(Look(e.ns, e.look), e.typed.encode("latin-1"), e.leaving) for e in self.typed)

    @property
    def max_ns(self) -> int | None:
        """Virtual time at which a replay is over: where the recorded run was cut, or soon after its own end."""
        if not self.virtual_ns:
            return None
        return self.virtual_ns + (0 if self.outcome is Outcome.TIMEOUT else _BEYOND_NS)

    def check(self, kernel: str, initrd: str, path: Path) -> None:
        """Compare with the files here, by their hashes.

        Raises:
            TypescriptError: they are others.
        """
        for field, recorded, here in (("kernel", self.kernel, kernel), ("initrd", self.initrd, initrd)):
            if recorded != here:
                raise _other(path, field, recorded, here)


_BEYOND_NS: Final = 1_000_000_000


def entries(strokes: Sequence[Stroke]) -> tuple[TypedEntry, ...]:
    """Strokes as a typescript has them."""
    return tuple(TypedEntry(*each.look, each.typed.decode("latin-1"), each.leaving) for each in strokes)


def of_run(observation: Observation, strokes: Sequence[Stroke], **others: Any) -> Typescript:  # noqa: ANN401 - its fields
    """The typescript of a run that was made."""
    cell = observation.cell
    where = {"guest": os.path.realpath(cell.guest), "initrd": cell.initrd and os.path.realpath(cell.initrd)}
    return Typescript(
        schema=SCHEMA,
        cell=replace(cell, **where),
        versions=observation.versions,
        typed=entries(strokes),
        outcome=observation.outcome,
        virtual_ns=observation.virtual_ns,
        event_log_sha256=observation.event_log_sha256,
        **others,
    )


def packed(script: Typescript) -> bytes:
    """The file's bytes."""
    fields = to_builtins(script)
    return (json.dumps({**fields, _DIGEST: _digest(fields)}, indent=1) + "\n").encode()


def read_typescript(path: Path) -> Typescript:
    """Read a file that somebody else may have made.

    Raises:
        UsageError: it cannot be read.
        TypescriptError: it is no typescript, of another version, or damaged.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except (OSError, ValueError) as failure:
        raise UsageError(f"{path}: cannot be read: {getattr(failure, 'strerror', None) or failure}") from failure
    fields = _fields(data, path)
    recorded, here = fields.pop(_DIGEST, ""), _digest(fields)
    if recorded != here:
        raise _other(path, _DIGEST, recorded, here, "is damaged: ")
    try:
        return read(json.dumps(fields).encode(), Typescript)
    except (ValueError, RecursionError) as failure:
        raise TypescriptError(f"is no typescript: {failure}", str(path)) from failure


def _fields(data: bytes, path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(data) if len(data) <= _MOST else None
    except (ValueError, RecursionError) as failure:
        raise TypescriptError(f"is no typescript, or is damaged: {failure}", str(path)) from failure
    if not isinstance(fields, dict):
        raise TypescriptError("is no typescript: it is no object of JSON", str(path))
    if (schema := fields.get("schema")) != SCHEMA:
        raise _other(path, "schema", schema, SCHEMA)
    return fields


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _other(path: Path, field: str, recorded: object, here: object, front: str = "") -> TypescriptError:
    message = f"{front}the file says {str(recorded)[:_SHOWN]!r}, and here it is {str(here)[:_SHOWN]!r}"
    return TypescriptError(message, str(path), field=field, recorded=str(recorded), here=str(here))


_SHOWN: Final = 200
