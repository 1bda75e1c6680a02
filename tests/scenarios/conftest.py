"""Scenarios are played once for all tests that look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.scenarios import (
    SCENARIOS,
    Performance,
    Stage,
    perform,
)

if TYPE_CHECKING:
    from pvops_core.scenarios.stage import StagedRun

from collections.abc import Callable
from functools import cache

from pvops_core.backends import load_backends

Play = Callable[[str], Performance]


@pytest.fixture(scope="session")
def stage() -> Stage:
    """A stage with what is installed."""
    return Stage(load_backends().backends)


@pytest.fixture(scope="session")
def play(stage: Stage) -> Play:
    """Plays a scenario by its name, the first time that it is asked for."""
    return cache(lambda name: perform(SCENARIOS[name], stage))


@pytest.fixture(scope="module")
def sound(stage: Stage) -> StagedRun:
    """A run in which nothing goes wrong."""
    return stage.run("6.1-64", "xen")
