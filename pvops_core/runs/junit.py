"""Runs of small guests as JUnit XML, which test reporters of CI services read.

Source: the schema of the Jenkins xUnit plugin (junit-10.xsd).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from pvops_core.runs.verdict import Judged, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

# All but the characters that XML 1.0 has (its production Char).
_ILLEGAL: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS: Final = {
    Verdict.SKIP: "skipped",
    Verdict.FAILURE: "failure",
    Verdict.ERROR: "error",
    Verdict.CRASH: "error",
}


def junit(runs: Mapping[str, Judged], suite: str = "pvops boot") -> bytes:
    """The document: one test case a run, by name; an error has CRASH or ERROR for its type.

    A failure that was expected is skipped, as pytest writes those; what was expected otherwise is a failure.
    """
    elements = {name: _element(run) for name, run in runs.items()}
    numbers = Counter(elements.values())
    root = ET.Element(
        "testsuite",
        name=suite,
        tests=str(len(runs)),
        failures=str(numbers["failure"]),
        errors=str(numbers["error"]),
        skipped=str(numbers["skipped"]),
        time=f"{sum(run.observation.wall_s for run in runs.values()):.3f}",
    )
    for name, judged in runs.items():
        run, word = judged.observation, judged.verdict.value
        case = ET.SubElement(root, "testcase", classname=run.cell.backend, name=legal(name), time=f"{run.wall_s:.3f}")
        if (element := elements[name]) is not None:
            reasons = [legal(line) for line in judged.why] or [word]
            found = ET.SubElement(case, element, message=reasons[0])
            if element != "skipped" or judged.verdict is not Verdict.SKIP:
                found.set("type", word)
            found.text = "\n".join([*reasons, legal(run.detail)]).strip()
        ET.SubElement(case, "system-out").text = legal(run.console)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _element(run: Judged) -> str | None:
    plain = _ELEMENTS.get(run.verdict)
    if run.as_expected:
        return "skipped" if plain else None
    return plain if run.expected is None or plain in {"failure", "error"} else "failure"


def legal(text: str) -> str:
    """Without the characters that XML 1.0 has no way to write (2.2), with plain line ends."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
