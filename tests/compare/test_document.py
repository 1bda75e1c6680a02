from __future__ import annotations

import json
from collections.abc import Callable

from pvops_core.compare.comparison import Comparison, grouped
from pvops_core.compare.document import compare_result
from pvops_core.records import document
from pvops_core.runs.observation import Observation

Make = Callable[..., Observation]


def test_a_document_is_json_and_a_run_is_a_cell_of_a_comparison(make: Make) -> None:
    found = document(compare_result(Comparison(grouped([make(), make("xen")]))))
    assert json.loads(json.dumps(found)) == found
    assert found["cells"] == [document(make()), document(make("xen"))]
    assert found["cells"][1]["sites"] == {"inlined": 2, "direct": 1, "indirect": 4, "nop": 1}
    assert found["cells"][1]["counts"]["hypercalls"] == {"mmu_update": 340, "iret": 7}
