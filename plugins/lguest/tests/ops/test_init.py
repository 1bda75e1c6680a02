"""The memory map."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from plugins.lguest.tests.rig import RAM

if TYPE_CHECKING:
    from plugins.lguest.tests.ops_rig import OpsHost


def test_memory_map(guest: OpsHost) -> None:
    assert guest.ops.memory_setup(guest.vcpu) == 0
    assert struct.unpack("<IQQI", guest.host.machine.memory.read(0x145000, 24)) == (1, 0, RAM, 1)
