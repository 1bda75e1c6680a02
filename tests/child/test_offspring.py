"""The processes that a child has started."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from pvops_core.child.offspring import Offspring

SLEEPER = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"


def test_a_grandchild_whose_parent_has_gone_is_found_and_ended() -> None:
    offspring, other = Offspring(), Offspring()
    assert offspring.mark != other.mark
    subprocess.run([sys.executable, "-c", SLEEPER], env={**os.environ, **offspring.mark}, check=True)
    assert len(offspring.pids()) == 1
    assert other.pids() == []
    other.kill()
    assert len(offspring.pids()) == 1
    offspring.kill()
    until = time.monotonic() + 10
    while offspring.pids() and time.monotonic() < until:
        time.sleep(0.01)
    assert offspring.pids() == []
