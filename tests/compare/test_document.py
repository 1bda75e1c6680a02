from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from pvops_core.compare.comparison import Comparison, Skipped, grouped
from pvops_core.compare.document import compare_document, run_document
from pvops_core.compare.observation import Observation
from pvops_core.errors import PluginError

Make = Callable[..., Observation]
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "comparison.md"


def documented(heading: str) -> set[str]:
    """Field names in the first column of the table that follows a line of the page."""
    rows = DOCS.read_text().partition(heading)[2].partition("|---")[2].partition("\n\n")[0].splitlines()[1:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_every_field_is_documented_and_there_is_no_other(make: Make) -> None:
    document = compare_document(
        Comparison(
            grouped([make(), make("xen", results={})]),
            skipped=(Skipped("a", "b", "c"),),
            plugin_errors=(PluginError("m", distribution="d", version="1", entry_point="e", hook="h"),),
        )
    )
    assert documented("## JSON") == {"schema", *document}
    run = document["cells"][0]
    assert documented("A run:") == run.keys()
    text = DOCS.read_text()
    for names in (
        document["groups"][0],
        document["groups"][0]["differences"][0],
        document["skipped"][0],
        document["plugin_errors"][0],
    ):
        assert f"{{{', '.join(names)}}}" in text
    for name in run["counts"]:
        assert name in text


def test_a_document_is_json_and_a_run_is_a_cell_of_a_comparison(make: Make) -> None:
    document = compare_document(Comparison(grouped([make(), make("xen")])))
    assert json.loads(json.dumps(document)) == document
    assert document["cells"] == [run_document(make()), run_document(make("xen"))]
    assert document["cells"][1]["sites"] == {"inlined": 2, "direct": 1, "indirect": 4, "nop": 1}
    assert document["cells"][1]["counts"]["hypercalls"] == {"mmu_update": 340, "iret": 7}
