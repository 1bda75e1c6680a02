"""All formats that a kernel's payload may be packed in."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from pvops_core.testing.images import PACKERS as _WITHOUT_LZO
from tests.images.test_decompress import lzop


def _lzo(data: bytes) -> bytes:
    return lzop(data) + struct.pack("<I", len(data))


PACKERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {**_WITHOUT_LZO, "lzo": _lzo}
"""Format name to what makes a payload."""
