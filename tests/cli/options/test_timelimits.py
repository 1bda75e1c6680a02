"""``--max-seconds`` holds for the whole command, from the start of its process, on every platform."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pvops_core.testing.images import ElfBuilder

SPIN = bytes.fromhex("90 fa ebfe")  # nop; cli; a jump to itself
XEN_SPIN = bytes.fromhex("90 ebfe")
STARTS = {"native": 20, "xen": 20, "lguest": 40}
"""How many times longer than the shortest of commands each may take. A plugin given by path is tried in a process of
its own first."""
PLUGIN = """
from pvops_core.backends import API, Backend
from pvops_lguest import backend as lguest
from pvops_lguest.platform import LguestPlatform


class Stuck(LguestPlatform):
    def build(self):
        super().build()
        entry = self.machine_address(self.guest.entry - self.guest.kernel_base)
        self.machine.memory.write(entry, bytes.fromhex("90 ebfe"))


backend = Backend(
    name="stuck", api=API, description="Loops at its entry.", base="lguest", platform=Stuck, kinds=lguest.kinds
)
"""


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A kernel that loops without interrupts, for bare metal."""
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", SPIN))
    path = tmp_path / "vmlinux"
    path.write_bytes(builder.build())
    return str(path)


@pytest.fixture
def domain(tmp_path: Path) -> str:
    """A kernel that loops with events masked, as a domain of Xen begins."""
    builder = ElfBuilder(64, 0xFFFFFFFF81000000)
    builder.symbol("start", builder.text(".text", XEN_SPIN))
    builder.section(".page", bytes(0x1000))
    word = (0xFFFFFFFF81000000).to_bytes(8, "little")
    base = (0xFFFFFFFF80000000).to_bytes(8, "little")
    strings = ((6, b"test\0"), (8, b"generic\0"), (5, b"xen-3.0\0"))
    builder.notes(*(("Xen", kind, text) for kind, text in strings), ("Xen", 1, word), ("Xen", 3, base))
    path = tmp_path / "vmlinux-xen"
    path.write_bytes(builder.build())
    return str(path)


def run(seconds: float, *words: str) -> tuple[str, float]:
    """What the command printed, and how long its process took."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pvops_core", *words, "--max-seconds", str(seconds)],
        capture_output=True,
        encoding="utf-8",
        timeout=10 * seconds,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    return done.stdout, time.monotonic() - begin


@pytest.fixture
def stuck(tmp_path: Path) -> str:
    """A plugin with a host of lguest whose guest loops with interrupts off."""
    path = tmp_path / "stuck.py"
    path.write_text(PLUGIN)
    return str(path)


@pytest.mark.parametrize("backend", ["native", "xen", "lguest"])
def test_a_loop_without_interrupts_ends_in_time_at_a_named_address(
    backend: str, request: pytest.FixtureRequest, enough: Callable[[int], float]
) -> None:
    limit = enough(STARTS[backend])
    if backend == "lguest":
        out, seconds = run(limit, "run", "--plugin", request.getfixturevalue("stuck"), "--backend", "stuck")
    else:
        kernel = request.getfixturevalue("domain" if backend == "xen" else "bare")
        out, seconds = run(limit, "boot", kernel, "--backend", backend, "--memory", "32")
    assert re.search(r"timeout: the wall time allowed is over; vcpu 0 at (start|entry)\+0x[12] ", out)
    assert 0.9 * limit <= seconds <= 1.1 * limit
