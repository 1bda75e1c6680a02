from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pvops_core.cli import main
from pvops_core.testing.assembly import assemble
from pvops_core.testing.images import ElfBuilder
from tests.session.selfpatching import SelfPatching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


ECHOING = """
    mov dx, 0x3fc
    mov al, 3
    out dx, al
    mov dx, 0x3f8
    mov al, 0x3e
    out dx, al
look:
    mov dx, 0x3fd
    in al, dx
    test al, 1
    jz look
    mov dx, 0x3f8
    in al, dx
    cmp al, 0x71
    je off
    out dx, al
    jmp look
off:
    mov dx, 0x604
    mov eax, 0x2000
    out dx, ax
    hlt
"""


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


@pytest.fixture
def echoing(tmp_path: Path) -> Path:
    """A kernel that says ">", then each byte that is typed, and powers off at q."""
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", assemble(ECHOING, 64, 0x1000000)))
    path = tmp_path / "vmlinux"
    path.write_bytes(builder.build())
    return path
