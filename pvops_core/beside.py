"""Files that are written whole or not at all: beside the old one, whose place they take when they are finished."""

from __future__ import annotations

import contextlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pvops_core.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


@contextmanager
def replacing(path: Path, what: str) -> Iterator[BinaryIO]:
    """A new file, which has the path from the end of the block on; a block that raises leaves the old one.

    Args:
        path: of the file.
        what: it is, for the error.

    Raises:
        UsageError: something else than a file has that path.
        HostError: it cannot be written.
    """
    # Not a file of the system's temporary folder, which may be on another disk: renaming is what cannot be half done.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no regular file, which {what} has to be")
        try:
            with beside.open("wb") as file:
                yield file
            beside.replace(path)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise HostError(f"{path} cannot be written: {reason}") from failure


def write_at(file: int, data: bytes | memoryview, at: int) -> None:
    """Write all of some bytes to an open file.

    Args:
        file: its descriptor.
        data: the bytes.
        at: offset of the first.

    Raises:
        OSError: they cannot be written.
    """
    with memoryview(data) as rest:
        done = 0
        while done < len(rest):
            # A call may write less than it is given: 0x7ffff000 bytes are the most (write(2)).
            done += os.pwrite(file, rest[done:], at + done)
