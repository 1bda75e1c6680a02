from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig import GATES, KIND_LAYOUTS, Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDE = "6.1-64"


@pytest.fixture(scope="module", params=KIND_LAYOUTS.values())
def shared(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig(request.param, vcpus=3) as rig:
        rig.machine.gates.map(rig.at(GATES), 1)
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    start = shared.machine.snapshot()
    yield shared
    shared.machine.restore(start)


@pytest.fixture
def wide() -> Iterator[Rig]:
    with Rig(WIDE, vcpus=2) as rig:
        yield rig
