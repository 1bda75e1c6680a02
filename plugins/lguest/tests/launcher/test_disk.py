"""The file behind a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_lguest.launcher.disk import Disk

from plugins.lguest.tests.small import SmallGuest
from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"disk=.*none.* cannot be read: No such file"):
        SmallGuest("2.6.24").session(options={"disk": str(tmp_path / "none")})
    assert Disk(b"x" * 513).sectors == 2
    assert Disk(b"x").read(0, 2) == b"x\0"
