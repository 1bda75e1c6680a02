from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench
from plugins.xen.tests.events_rig import Events


@pytest.fixture
def events(make_bench: Callable[..., Bench], request: pytest.FixtureRequest) -> Events:
    return Events(make_bench(getattr(request, "param", MachineKind.X86_64), 2))
