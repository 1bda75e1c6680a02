"""Bytes of a file as they are there: read when somebody looks at them, and shared by all who do."""

from __future__ import annotations

import mmap
from typing import Any


class MappedBytes(mmap.mmap):
    """What a file holds from a page's beginning to its end, with all that ``bytes`` has.

    Slices are bytes. Who replaces the file takes nothing away here; who cuts it short ends the process that looks.
    """

    def __contains__(self, part: object) -> bool:
        part = bytes([part]) if isinstance(part, int) else part
        return isinstance(part, bytes) and self.find(part) >= 0

    def startswith(self, prefix: bytes) -> bool:
        """As of bytes, without a copy of them all."""
        return self[: len(prefix)] == prefix

    def __eq__(self, other: object) -> bool:
        return self[:] == (other[:] if isinstance(other, MappedBytes) else other)

    def __hash__(self) -> int:
        return hash(self[:])

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever bytes have, of a copy
        return getattr(self[:], name)


ByteString = bytes | MappedBytes
"""Bytes in memory, or in a file."""


def mapped(file: int, offset: int) -> MappedBytes:
    """What a file holds from an offset on, which is a page's beginning and not its end.

    Raises:
        OSError: it cannot be mapped; ValueError, there is nothing.
    """
    return MappedBytes(file, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ, offset=offset)
