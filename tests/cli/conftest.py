from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pvops_core.cli import main
from tests.session.selfpatching import SelfPatching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A small one with a site of write_cr3, in a file."""
    path = tmp_path / "vmlinux"
    path.write_bytes(SelfPatching.of("mmu.write_cr3").build(body=(0,)).data)
    return path


@pytest.fixture
def enough() -> Callable[[int], float]:
    """Seconds that let a command get under way now, given how many times longer than the shortest of all it takes.

    Four at least. A machine that is busy while the tests run needs more.
    """

    def seconds(starts: int) -> float:
        begin = time.monotonic()
        subprocess.run([sys.executable, "-m", "pvops_core", "--version"], capture_output=True, check=True)
        return max(4.0, starts * (time.monotonic() - begin))

    return seconds


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    assert main(["new-backend", "my_demo", "--directory", str(folder), "--json", os.devnull]) == 0
    return folder
