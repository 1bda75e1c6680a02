"""The processes that a child has started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from pvops_core.child import offspring as offspring_module
from pvops_core.child.offspring import Offspring

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

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


def test_one_in_the_midst_of_execve_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel shows of it then is empty; what has no environment, or is the kernel's own, is not waited for."""
    offspring, waits = Offspring(), []
    for pid, files in (("7", ("environ", "cmdline", "exe")), ("8", ("environ", "exe")), ("9", ("environ", "cmdline"))):
        (tmp_path / pid).mkdir()
        for name in files:
            (tmp_path / pid / name).touch()
    (tmp_path / "8" / "cmdline").write_bytes(b"env\0-i\0")
    for pid in "78":
        (tmp_path / pid / "exe").unlink()
        (tmp_path / pid / "exe").symlink_to(sys.executable)
    ((name, value),) = offspring.mark.items()

    def goes_on(seconds: float) -> None:
        waits.append(seconds)
        (tmp_path / "7" / "environ").write_bytes(f"A=1\0{name}={value}\0".encode())

    monkeypatch.setattr(offspring_module, "_PROC", tmp_path)
    monkeypatch.setattr(time, "sleep", goes_on)
    assert offspring.pids() == [7]
    assert len(waits) == 1
