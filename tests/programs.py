"""Small programs of user space, for tests of what looks at their headers."""

from __future__ import annotations

from pvops_core.testing.images import ElfBuilder

_HEADERS = {64: (64, 56), 32: (52, 32)}
"""Bytes of the file's header, and of one of a segment."""
_PT_INTERP = 3


def program(bits: int = 64, linker: str = "") -> bytes:
    """One that cannot do anything, linked by a dynamic linker of this path; empty for none."""
    builder = ElfBuilder(bits=bits, base=0x400000)
    builder.text(".text", b"\xf4")
    if not linker:
        return builder.build()
    builder.section(".interp", linker.encode() + b"\0")
    made = bytearray(builder.build())
    file, segment = _HEADERS[bits]
    made[file + segment] = _PT_INTERP
    return bytes(made)
