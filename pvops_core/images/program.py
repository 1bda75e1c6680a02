"""A program of user space, as far as a kernel that starts it looks: for which machine, and what it is linked by."""

from __future__ import annotations

import io

import attrs
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from pvops_core.errors import ImageError
from pvops_core.images.elf import FAILURES, MACHINES


@attrs.frozen
class Program:
    """What an executable's headers say.

    Attributes:
        machine: ``"x86_64"`` or ``"i386"``.
        interpreter: path of the dynamic linker that it asks for (``PT_INTERP``); empty if it needs none.
    """

    machine: str
    interpreter: str


def read_program(data: bytes, path: str) -> Program:
    """Read an executable's headers.

    Raises:
        ImageError: it is no executable ELF file for x86, or its headers are damaged.
    """
    if not data.startswith(b"\x7fELF"):
        raise ImageError(f"is no ELF file (begins {data[:4].hex(' ')})", path, 0, "e_ident")
    try:
        file = ELFFile(io.BytesIO(data))
        architecture, kind = file["e_machine"], file["e_type"]
        asked = [each.get_interp_name() for each in file.iter_segments() if isinstance(each, InterpSegment)]
    except FAILURES as failure:
        message = f"is a damaged ELF file: {failure or type(failure).__name__}"
        raise ImageError(message, path, 0, "e_ident") from failure
    machine, bits = MACHINES.get(str(architecture), ("", 0))
    if bits != file.elfclass:
        message = f"is a {file.elfclass}-bit program for {architecture}, neither x86_64 nor i386"
        raise ImageError(message, path, 18, "e_machine")
    if kind not in {"ET_EXEC", "ET_DYN"}:
        raise ImageError(f"is of type {kind}, not an executable", path, 16, "e_type")
    return Program(machine, asked[0] if asked else "")
