from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.kinds import MachineKind
from pvops_core.records import line, read
from pvops_core.runs import wire
from pvops_core.runs.cell import Cell
from pvops_core.runs.counts import Counts
from pvops_core.runs.observation import Observation, Outcome

counters = st.dictionaries(st.text(max_size=8), st.integers(0, 1 << 64), max_size=3)
cells = st.builds(
    Cell,
    backend=st.text(),
    layout=st.text(),
    kind=st.sampled_from(MachineKind),
    workload=st.text(),
    seed=st.integers(0, 1 << 64),
    options=st.dictionaries(st.text(), st.text(), max_size=2),
)
observations = st.builds(
    Observation,
    cells,
    st.sampled_from(Outcome),
    reason=st.text(),
    results=st.dictionaries(st.text(), st.text(), max_size=3),
    console=st.text(),
    counts=st.builds(Counts, ops=counters),
    sites=st.dictionaries(st.text(), counters, max_size=2),
    wall_s=st.floats(0, 1e6),
)


@settings(derandomize=True, max_examples=50)
@given(st.one_of(observations, st.text(), st.sampled_from(wire.WorkerPhase)))
def test_messages_survive_the_pipe(message: wire.Message) -> None:
    said = wire.encode(message)
    assert said.count(b"\n") == 1
    assert wire.decode(said) == message


@settings(derandomize=True, max_examples=50)
@given(cells, st.lists(st.text(), max_size=2), st.none() | st.integers(0), st.binary())
def test_requests_survive_the_pipe(cell: Cell, plugins: list[str], max_ns: int | None, typed: bytes) -> None:
    request = wire.Request(cell, tuple(plugins), max_ns=max_ns, typed=typed, live=bool(plugins))
    assert read(line(request), wire.Request) == request


@given(st.binary())
def test_what_is_typed_survives_the_pipe(data: bytes) -> None:
    typed = line(wire.Typed(data))
    assert typed.endswith(b"\n")
    assert read(typed[:-1], wire.Typed).typed == data


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"phase": "dreaming"},
        {"console": 3},
        {"observation": None},
        {"observation": {"outcome": "poweroff"}},
        {"observation": {"cell": {"backend": "b", "layout": "l", "kind": "vax"}, "outcome": "poweroff"}},
        {"observation": {"cell": {"backend": "b", "layout": "l", "kind": "pae"}, "outcome": "fine"}},
        {"observation": {"cell": {"backend": "b", "layout": "l", "kind": "pae"}, "outcome": "crash", "counts": 3}},
        {"observation": {"cell": {"backend": "b", "layout": "l", "kind": "pae"}, "outcome": "crash", "more": 3}},
        {
            "observation": {
                "cell": {"backend": "b", "layout": "l", "kind": "pae"},
                "outcome": "crash",
                "counts": {"ops": {"write_cr3": "many"}},
            }
        },
    ],
)
def test_what_is_no_message_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match=r"Expected|Invalid|message|missing|unknown"):
        wire.decode(json.dumps(document).encode())
