"""Every report says that op calls and virtual time measure no backend, and shows first what can be compared."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

from pvops_core.compare.comparison import Comparison, grouped
from pvops_core.compare.page import page
from pvops_core.compare.text import print_comparison
from pvops_core.runs.costs import BOOT_COSTS, COSTS
from pvops_core.runs.observation import Observation

Make = Callable[..., Observation]


def test_counts_come_before_times() -> None:
    for costs in (COSTS, BOOT_COSTS):
        keys = [cost.key for cost in costs]
        assert max(map(keys.index, ("traps", "hypercalls", "instructions"))) < keys.index("virtual_ns")


def test_a_table_and_a_page_say_so(make: Make) -> None:
    comparison = Comparison(grouped([make(), make("xen")]))
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=200))
    for text in (file.getvalue(), page(comparison)):
        assert "Neither measures a backend" in text
