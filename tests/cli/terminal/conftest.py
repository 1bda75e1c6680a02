"""A guest that answers each key, for commands at a real terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvops_core.testing.assembly import assemble
from pvops_core.testing.images import ElfBuilder

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
def echoing(tmp_path: Path) -> Path:
    """A kernel that says ">", then each byte that is typed, and powers off at q."""
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", assemble(ECHOING, 64, 0x1000000)))
    path = tmp_path / "vmlinux"
    path.write_bytes(builder.build())
    return path
