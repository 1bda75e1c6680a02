from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvops_core.errors import UsageError
from pvops_core.machine.run.eventlog import Event
from pvops_core.runs.worker.events import read_events, write_events


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
    assert list(read_events(str(path))) == [
        Event(0, "poke", None, (("by", "install"), ("old", "0f0b"))),
        events[1],
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no JSON"),
        ("[]", "an event has ns, kind, vcpu, fields"),
        ('{"ns": 0, "kind": "int", "vcpu": null}', "an event has ns, kind, vcpu, fields"),
        ('{"ns": "0", "kind": "int", "vcpu": null, "fields": {}}', "ns cannot be '0'"),
        ('{"ns": 0, "kind": "int", "vcpu": true, "fields": {}}', "vcpu cannot be True"),
        ('{"ns": 0, "kind": "int", "vcpu": 0, "fields": {"rip": [1]}}', r"fields.rip cannot be \[1\]"),
    ],
)
def test_what_is_no_event_is_told_with_its_line(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "events"
    path.write_text('{"ns": 0, "kind": "int", "vcpu": 0, "fields": {"rip": 1}}\n' + line + "\n")
    with pytest.raises(UsageError, match=f"events:2: {why}"):
        list(read_events(str(path)))


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "events"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="events: cannot be read"):
        list(read_events(str(path)))
