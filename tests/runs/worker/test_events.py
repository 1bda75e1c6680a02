from __future__ import annotations

import json
from pathlib import Path

from pvops_core.machine.run.eventlog import Event
from pvops_core.runs.worker.events import write_events


def test_events_are_written_one_a_line(tmp_path: Path) -> None:
    events = [
        Event(0, "poke", None, (("by", "install"), ("old", b"\x0f\x0b"))),
        Event(7, "stop", 1, (("ns", 9), ("reason", "line\nend"))),
    ]
    path = tmp_path / "events"
    write_events(events, str(path))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"ns": 0, "kind": "poke", "vcpu": None, "fields": {"by": "install", "old": "0f0b"}},
        {"ns": 7, "kind": "stop", "vcpu": 1, "fields": {"ns": 9, "reason": "line\nend"}},
    ]
