"""Writes a run's event log as text: one JSON object a line, in order."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvops_core.errors import UsageError

if TYPE_CHECKING:
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
