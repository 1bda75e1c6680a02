from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.grants_rig import Grants


@pytest.fixture
def grants(bench: Bench) -> Grants:
    return Grants(bench)
