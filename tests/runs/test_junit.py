from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.junit import junit
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.verdict import Judged, Verdict

Make = Callable[..., Observation]


def test_each_run_is_a_case(make: Make) -> None:
    runs = {
        "good": make(console="Test result: SUCCESS\n", wall_s=1.0),
        "skipped": make(console="Skip: no y\nTest result: SKIP\n", wall_s=0.5),
        "bad": make(console="Fail: <x>\nFail: z\nTest result: FAILURE\n"),
        "wrong": make(console="Test result: ERROR\n"),
        "lost": make(console="", outcome="died", reason="killed", detail="so sad"),
    }
    root = ET.fromstring(junit({name: Judged(run) for name, run in runs.items()}))
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


def test_what_was_expected_is_skipped_and_what_was_not_a_failure(make: Make) -> None:
    crash, good = make(console="", outcome="crash", reason="so"), make(console="Test result: SUCCESS\n")
    runs = {
        "crashes": Judged(crash, Verdict.CRASH),
        "works": Judged(good, Verdict.SUCCESS),
        "works now": Judged(good, Verdict.CRASH),
        "crashes now": Judged(crash, Verdict.SKIP),
    }
    root = ET.fromstring(junit(runs))
    assert [root.attrib[key] for key in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    found = {case.attrib["name"]: (case[0].tag, case[0].attrib) for case in root}
    assert found == {
        "crashes": ("skipped", {"message": "crash: so", "type": "CRASH"}),
        "works": ("system-out", {}),
        "works now": ("failure", {"message": "CRASH was expected", "type": "SUCCESS"}),
        "crashes now": ("error", {"message": "SKIP was expected", "type": "CRASH"}),
    }


@given(st.text(), st.text())
def test_any_text_makes_a_document_that_can_be_read(name: str, console: str) -> None:
    run = Observation(
        Cell("native", "", MachineKind.X86_64), Outcome.CRASH, console=console, reason=name, detail=console
    )
    (case,) = ET.fromstring(junit({name: Judged(run)}))
    assert case.attrib["classname"] == "native"
