from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plugins.lguest.tests.ops_rig import OpsHost

if TYPE_CHECKING:
    from .conftest import MakeHost


@pytest.fixture
def guest(make_host: MakeHost) -> OpsHost:
    return OpsHost(make_host().init())
