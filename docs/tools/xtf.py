"""What running the Xen Test Framework here needs, and the table of its results.

``python docs/tools/xtf.py settings xtf/tests`` writes a TOML file beside each PV test whose xl configuration says more
than its image, or that does not succeed on a real Xen 4.17.
``python docs/tools/xtf.py table docs/how-to/running-xtf.md result.json`` puts the results of ``pvops boot --json`` into
the page.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

REASONS: Final = {
    "argo": "Xen 4.17 is built without Argo unless asked to, so the hypercall is not there",
    "pv-fsgsbase": "the processor shown to the guest has no FSGSBASE",
    "xsa-167": "Xen has given up superpages of PV guests, and refuses the op",
    "xsa-444": "the processor shown to the guest has no DBEXT, a feature of AMD's",
    "debug-regs": "reads MSR 0x1d9 (DEBUGCTL), which Xen 4.17 refuses to a PV guest: the test panics on a real Xen too",
}
"""Test name -> why it does not succeed where Xen 4.17 has a domU of this processor either."""
EXPECTED: Final = {"debug-regs": "CRASH"}
"""Test name -> verdict that it has on a real Xen 4.17, where that is a failure."""
_SETTING: Final = re.compile(r"^(\w+)\s*=\s*(?:\"([^\"]*)\"|(\d+))", re.MULTILINE)
_NAME: Final = re.compile(r"test-(pv64|pv32pae)-([^~]+)(?:~(.+))?")
_BEGIN, _END = "<!-- results -->\n", "<!-- end of results -->\n"


def settings(configuration: str, test: str = "") -> str:
    """An xl configuration's settings as the TOML that stands beside an image; empty if there is nothing to say."""
    found = {name: text or number for name, text, number in _SETTING.findall(configuration)}
    lines = [f'expect = "{EXPECTED[test]}"'] if test in EXPECTED else []
    if found.get("cmdline"):
        lines.append(f"cmdline = {json.dumps(found['cmdline'])}")
    if found.get("vcpus", "1") != "1":
        lines.append(f"cpus = {found['vcpus']}")
    if "max_event_channels" in found:
        lines += ["[set]", f"event_channels = {found['max_event_channels']}"]
    return "".join(f"{line}\n" for line in lines)


def table(document: Mapping[str, Any]) -> str:
    """The results as Markdown: one row a test, with the reason where it is no success."""
    rows: dict[str, dict[str, str]] = {}
    for run in document["runs"]:
        if (match := _NAME.fullmatch(run["name"])) is None:
            continue
        width, test, way = match.groups()
        rows.setdefault(f"{test} ({way})" if way else test, {})[width] = run["verdict"]
    return "".join(f"{line}\n" for line in _lines(rows))


def _lines(rows: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    yield "| test | 64 bits | 32 bits (PAE) | why |"
    yield "|---|---|---|---|"
    for test, verdicts in sorted(rows.items()):
        why = REASONS.get(test, "") if {*verdicts.values()} != {"SUCCESS"} else ""
        yield f"| {test} | {verdicts.get('pv64', '-')} | {verdicts.get('pv32pae', '-')} | {why} |"


def main(arguments: list[str]) -> None:
    """The command line."""
    match arguments:
        case ["settings", folder]:
            for path in sorted(Path(folder).glob("*/test-pv*.cfg")):
                match = _NAME.fullmatch(path.stem)
                if text := settings(path.read_text(encoding="utf-8"), match[2] if match else ""):
                    path.with_suffix(".toml").write_text(text, encoding="utf-8")
        case ["table", page, result]:
            text = Path(page).read_text(encoding="utf-8")
            before, rest = text.split(_BEGIN)
            rows = table(json.loads(Path(result).read_text(encoding="utf-8")))
            Path(page).write_text(f"{before}{_BEGIN}\n{rows}\n{_END}{rest.split(_END)[1]}", encoding="utf-8")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
