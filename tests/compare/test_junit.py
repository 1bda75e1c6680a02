from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.compare.cell import Cell
from pvops_core.compare.junit import junit
from pvops_core.compare.observation import Observation, Outcome

Make = Callable[..., Observation]


def test_each_run_is_a_case(make: Make) -> None:
    runs = {
        "good": make(console="Test result: SUCCESS\n", wall_s=1.0),
        "skipped": make(console="Skip: no y\nTest result: SKIP\n", wall_s=0.5),
        "bad": make(console="Fail: <x>\nFail: z\nTest result: FAILURE\n"),
        "wrong": make(console="Test result: ERROR\n"),
        "lost": make(console="", outcome="died", reason="killed", detail="so sad"),
    }
    root = ET.fromstring(junit(runs))
    assert root.attrib | {"time": ""} == {
        "name": "pvops boot",
        "tests": "5",
        "failures": "1",
        "errors": "2",
        "skipped": "1",
        "time": "",
    }
    cases = {case.attrib["name"]: case for case in root}
    assert list(cases) == list(runs)
    assert [[part.tag for part in case] for case in cases.values()] == [
        *(["system-out"], ["skipped", "system-out"], ["failure", "system-out"]),
        *(["error", "system-out"], ["error", "system-out"]),
    ]
    assert cases["skipped"][0].attrib == {"message": "no y"}
    assert (cases["bad"][0].attrib, cases["bad"][0].text) == ({"message": "<x>", "type": "FAILURE"}, "<x>\nz")
    assert cases["wrong"][0].attrib["type"] == "ERROR"
    assert cases["lost"][0].attrib == {"message": "died: killed", "type": "CRASH"}
    assert cases["lost"][0].text == "died: killed\nso sad"


@given(st.text(), st.text())
def test_any_text_makes_a_document_that_can_be_read(name: str, console: str) -> None:
    run = Observation(Cell("native", "", "x86_64"), Outcome.CRASH, console=console, reason=name, detail=console)
    (case,) = ET.fromstring(junit({name: run}))
    assert case.attrib["classname"] == "native"
