"""Bounds on a child process."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.child.limits import Limits, resident_bytes


@given(wall=st.floats(0, 1e6))
def test_a_worker_that_keeps_its_own_time_is_left_some_more(wall: float) -> None:
    assert Limits(wall_s=wall).patience_s >= max(wall + 2, 1.08 * wall) * (1 - 1e-9)


def test_resident_memory_is_told_of_processes_that_are_there() -> None:
    own = resident_bytes(os.getpid())
    assert own is not None
    assert own > 1 << 20
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert resident_bytes(ended.pid) is None
