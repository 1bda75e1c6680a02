"""The file behind a guest's disk, which is only read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pvops_core.errors import UsageError

SECTOR: Final = 512


class Disk:
    """A disk of whole sectors; what the file lacks of the last one is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        # Rounded up, so that the tail of a file is not lost.
        self.sectors = -(-len(data) // SECTOR)

    @classmethod
    def of_file(cls, name: str) -> Disk:
        """The disk of a file.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            return cls(Path(name).read_bytes())
        except OSError as failure:
            raise UsageError(f"disk={name!r} cannot be read: {failure.strerror}") from None

    def read(self, sector: int, length: int) -> bytes | None:
        """``length`` bytes from a sector on; None if they are not all there."""
        start = sector * SECTOR
        if start + length > self.sectors * SECTOR:
            return None
        return self._data[start : start + length].ljust(length, b"\0")
