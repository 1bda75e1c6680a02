from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.counts import Counts, PlatformCounts
from pvops_core.runs.observation import Observation, Outcome

Make = Callable[..., Observation]

_CONSOLE = "booting\nguest: platform: {backend}\nguest: memory ok\nguest: digest 5eed\n"


@pytest.fixture
def make() -> Make:
    """An observation such as a short run gives; any field can be given instead, of counts some."""

    def observation(
        backend: str = "native",
        layout: str = "6.1-64",
        kind: str = "x86_64",
        **fields: Any,  # noqa: ANN401 -- every field of an observation
    ) -> Observation:
        cell = Cell(backend, layout, MachineKind(kind), **fields.pop("cell", {}))
        native = backend == "native"
        hypercalls = {} if native else {"mmu_update": 340, "iret": 7}
        counts: dict[str, Any] = {
            "ops": {"write_cr3": 3, "set_pte": 1200} if native else {"write_cr3": 4, "set_pte": 1234},
            "platform": PlatformCounts(hypercalls, {"page fault": 12}, page_table_updates=1200, flushes=17),
            "machine": {"tlb_flushes": 31, "exceptions": 12},
        }
        usual: dict[str, Any] = {
            "results": {"status": "0", "digest": "5eed"},
            "console": _CONSOLE.format(backend=backend),
            "counts": Counts(**counts | fields.pop("counts", {})),
            "sites": {"write_cr3": {"inlined": 2, "direct": 1}, "set_pte": {"indirect": 4, "nop": 1}},
            "instructions": 1_234_567,
            "virtual_ns": 2_345_678,
            "wall_s": 0.81,
            "event_log_sha256": "ab" * 32,
            "text_sha256": "cd" * 32,
            "versions": {"pvops-core": "0.1.0", "python": "3.11.7"},
        }
        return Observation(cell, Outcome(fields.pop("outcome", Outcome.POWEROFF)), **(usual | fields))

    return observation
