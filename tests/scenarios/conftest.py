"""Scenarios are played once for all tests that look at them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from pvops_core.backends import load_backends
from pvops_core.scenarios import SCENARIOS, Performance, Stage, perform

Play = Callable[[str], Performance]


@pytest.fixture(scope="session")
def stage() -> Stage:
    """A stage with what is installed."""
    return Stage(load_backends().backends)


@pytest.fixture(scope="session")
def play(stage: Stage) -> Play:
    """Plays a scenario by its name, the first time that it is asked for."""
    return cache(lambda name: perform(SCENARIOS[name], stage))
