"""A run's event log as text: one JSON object a line, in order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pvops_core.errors import UsageError
from pvops_core.machine.run.eventlog import Event


def write_events(events: Iterable[Event], path: str) -> None:
    """Write ``{"ns", "kind", "vcpu", "fields"}`` for each event; bytes become hex digits.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with Path(path).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(_plain(event)) + "\n" for event in events)
    except OSError as failure:
        raise UsageError(f"{path}: cannot be written: {failure.strerror}") from failure


def _plain(event: Event) -> dict[str, Any]:
    fields = {name: value.hex() if isinstance(value, bytes) else value for name, value in event.fields}
    return {"ns": event.ns, "kind": event.kind, "vcpu": event.vcpu, "fields": fields}


_MEMBERS: Final = {"ns": int, "kind": str, "vcpu": int | None, "fields": dict}


def read_events(path: str) -> Iterator[Event]:
    """The events of a file that ``write_events`` has written; bytes stay the hexadecimal digits that they became.

    Raises:
        UsageError: the file cannot be read, or a line is no event: it says which.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield _event(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as failure:
        raise UsageError(f"{path}: cannot be read: {failure}") from failure


def _event(line: str, where: str) -> Event:
    try:
        plain = json.loads(line)
    except ValueError as failure:
        raise UsageError(f"{where}: no JSON: {failure}") from failure
    if not isinstance(plain, dict) or plain.keys() != _MEMBERS.keys():
        raise UsageError(f"{where}: an event has {', '.join(_MEMBERS)}")
    for name, kind in _MEMBERS.items():
        if not isinstance(plain[name], kind) or isinstance(plain[name], bool):
            raise UsageError(f"{where}: {name} cannot be {plain[name]!r}")
    for name, value in plain["fields"].items():
        if not isinstance(value, int | str) or isinstance(value, bool):
            raise UsageError(f"{where}: fields.{name} cannot be {value!r}")
    return Event(plain["ns"], plain["kind"], plain["vcpu"], tuple(sorted(plain["fields"].items())))
