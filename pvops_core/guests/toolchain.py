"""What committed objects are made with: compiler, linker, and flags under which nothing depends on the host."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from pvops_core.errors import PvopsError

COMPILER: Final = "12.2.0"
"""Version of gcc that the committed objects were made with (``gcc -dumpfullversion``)."""
LINKER: Final = "2.40"
"""Version of GNU binutils that they were made with."""


def words(*lines: str) -> tuple[str, ...]:
    """The words of some lines."""
    return tuple(" ".join(lines).split())


FREESTANDING: Final = words(
    "-std=gnu11 -O2 -g0 -Wall -Wextra -Werror",
    "-ffreestanding -nostdinc -fno-builtin -fno-tree-loop-distribute-patterns",  # nothing but what is in the folder
    "-fno-pic -fno-pie -fno-common -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables",
    "-fno-strict-aliasing -fno-ident",
    "-mno-sse -mno-mmx -mno-sse2 -mno-3dnow -msoft-float",
)


def toolchain() -> tuple[str, str] | None:
    """Versions of gcc and ld on this machine; None if one is missing."""
    if not all(shutil.which(tool) for tool in ("gcc", "ld", "objcopy")):
        return None
    gcc = run(["gcc", "-dumpfullversion"], Path()).strip()
    linker = run(["ld", "--version"], Path()).splitlines()[0].split()[-1]
    return gcc, linker


def run(command: list[str], folder: Path) -> str:
    """What a tool prints, run in a folder; PvopsError, with what it said, if it fails."""
    done = subprocess.run(  # noqa: S603 - the command is ours
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if done.returncode:
        raise PvopsError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout
