"""Builds the program from its source: ``python -m pvops_core.guests.workload.build`` (or ``make guest``).

As with the built-in guest's objects, those that are committed are what ``toolchain`` makes of the source.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

import attrs

from pvops_core.errors import PvopsError
from pvops_core.guests.toolchain import FREESTANDING, run, words
from pvops_core.guests.workload.program import program_path

SOURCE: Final = Path(__file__).parent / "source"


@attrs.frozen
class ProgramBuild:
    """The program for one width: bits of a pointer, flags, the linker's name for the format, and where it is to lie."""

    bits: int
    flags: tuple[str, ...]
    emulation: str
    base: int


BUILDS: Final = (
    ProgramBuild(32, words("-m32 -march=i686 -mtune=generic"), "elf_i386", 0x8048000),
    ProgramBuild(64, words("-m64 -march=x86-64 -mtune=generic"), "elf_x86_64", 0x400000),
)


def build(how: ProgramBuild) -> bytes:
    """Compile and link one; its ELF file as bytes.

    Raises:
        PvopsError: a tool failed; the message holds what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source in sorted(path.name for path in SOURCE.glob("*.c")):
            objects.append(f"{folder}/{source}.o")
            run(["gcc", *FREESTANDING, *how.flags, "-c", "-o", objects[-1], source], SOURCE)
        elf = Path(folder, "init.elf")
        link = ["ld", "-m", how.emulation, *words("--build-id=none -s -z max-page-size=4096 -z noseparate-code")]
        run([*link, "-z", "noexecstack", f"-Ttext-segment={how.base:#x}", "-o", str(elf), *objects], SOURCE)
        return elf.read_bytes()


def main() -> None:
    """Build both into the objects folder."""
    for how in BUILDS:
        path = program_path(how.bits)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(build(how))
        sys.stdout.write(f"{path.name}\n")


if __name__ == "__main__":
    try:
        main()
    except PvopsError as error:
        sys.exit(str(error))
