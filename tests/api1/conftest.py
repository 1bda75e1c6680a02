from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine


@pytest.fixture
def machine() -> Iterator[Callable[[], Machine]]:
    made: list[Machine] = []

    def make() -> Machine:
        made.append(Machine(MachineKind.X86_64, memory=4 << 20))
        return made[-1]

    yield make
    for each in made:
        each.close()
