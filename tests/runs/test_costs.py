from __future__ import annotations

import pytest

from pvops_core.runs.costs import quantity


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"),
        (1234567, "", "1,234,567"),
        (999, "ns", "999 ns"),
        (1234, "ns", "1.23 µs"),
        (999_999, "ns", "1,000 µs"),
        (45_600_000, "ns", "45.6 ms"),
        (1.5, "s", "1.50 s"),
        (12_345, "s", "12,345 s"),
    ],
)
def test_quantity(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text
