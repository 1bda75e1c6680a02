"""Payloads that unpack to far more than they declare, in each of seven formats."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from functools import cache
from typing import Final

from pvops_core.testing.images import wrap_payload
from soak.damage.packed import PACKERS

_BODY: Final = b"\x7fELF" + bytes(48 << 20)


@cache
def _payload(format_: str) -> bytes:
    return PACKERS[format_](_BODY)


def some(chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Two formats, each with a size that lies, now and then none at all."""
    for format_ in chance.sample(sorted(PACKERS), 2):
        declared = chance.choice((0, 1, 4096, 1 << 20, len(_BODY) - 1, (1 << 30) - 1, (1 << 32) - 1))
        # Below 2.08 no field says where the payload is (Documentation/arch/x86/boot.rst).
        protocol = chance.choice((0x20F, 0x20F, 0x204))
        # A payload ends in its unpacked size: gzip's own, or what the kernel's build appends (scripts/Makefile.lib).
        yield format_, wrap_payload(_payload(format_)[:-4] + struct.pack("<I", declared), protocol=protocol)
