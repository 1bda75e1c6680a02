"""A share of the storm of switches between a Linux's own functions and a backend's hooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.session.kernels.opstorm import storm

SWITCHES = 150


@pytest.mark.kernel
@pytest.mark.slow
def test_ops_go_to_and_fro_under_load(kernel_path: Callable[[str], Path]) -> None:
    tally = storm(kernel_path("vmlinuz-6.1.0-56-cloud-amd64"), "xen", SWITCHES, 5)
    assert not tally.wrong, tally.told()
    assert tally.in_time >= 0.99, tally.told()
    assert tally.calls.total() > SWITCHES
