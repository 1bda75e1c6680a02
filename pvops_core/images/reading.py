"""The bytes of a file that may be a kernel."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from pvops_core.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

FILE_LIMIT: Final = 1 << 30
"""Largest file read; a vmlinux with all debug information is about 700 MiB."""


def read_file(source: Path, path: str) -> bytes:
    """The bytes of a file that may be a kernel; ImageError, which calls it ``path``, if it cannot be read."""
    try:
        status = source.stat()
        # A pipe or a device would never end.
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file", path)
        if status.st_size > FILE_LIMIT:
            raise ImageError(f"has {status.st_size:#x} bytes; the most read is {FILE_LIMIT:#x}", path)
        return source.read_bytes()
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise ImageError(f"cannot be read: {reason}", path) from failure
