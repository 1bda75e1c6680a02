"""What a child is in the midst of, in memory that is its parent's too: it can be read when the child is gone.

A name has a byte: 0 while nothing goes on under it, else 1 more than the index of the vCPU for which it does, or 255 if
it is for none. Setting that byte is all that is done each time, so it may be done as often as a hook is called.
"""

from __future__ import annotations

import functools
import mmap
import os
from typing import Final

VARIABLE: Final = "_PVOPS_CHILD_MARKS"
"""Environment variable of a child: descriptor and inode of the memory."""
FOR_NONE: Final = 255
"""The byte of what goes on for no vCPU."""
_NAMES: Final = 4096
"""So many names have a byte; they follow the bytes as lines."""
_SIZE: Final = 1 << 20
_REST: Final = "one of too many to name"


class Marks:
    """The bytes, and what they stand for.

    Attributes:
        bytes: of each name, by its number; set by whoever asked for the number.
    """

    def __init__(self, descriptor: int = -1) -> None:
        self._memory = mmap.mmap(descriptor, _SIZE)
        self.bytes = memoryview(self._memory)[:_NAMES]
        self._numbers: dict[str, int] = {}
        self._end = _NAMES
        self.number(_REST)

    def number(self, name: str) -> int:
        """The number of a name, the same each time; when there is no more room, one that says so."""
        found = self._numbers.get(name)
        if found is None:
            line = name.encode("utf-8", "backslashreplace").replace(b"\n", b" ") + b"\n"
            found = len(self._numbers)
            if found >= _NAMES or self._end + len(line) > _SIZE:
                return self._numbers[_REST]
            self._memory[self._end : self._end + len(line)] = line
            self._end += len(line)
            self._numbers[name] = found
        return found

    def standing(self) -> list[tuple[str, int]]:
        """Names whose byte is not 0, with the byte, as whoever set them has left them."""
        if not any(self.bytes):
            return []
        names = self._memory[_NAMES:].split(b"\n")
        return [(names[at].decode(errors="replace"), value) for at, value in enumerate(self.bytes) if value]

    def clear(self) -> None:
        """Nothing goes on."""
        self.bytes[:] = bytes(_NAMES)


@functools.cache
def marks() -> Marks:
    """This process's: shared with its parent if that supervises it."""
    descriptor, _, inode = os.environ.pop(VARIABLE, "").partition(":")
    try:
        number = int(descriptor)
        if os.fstat(number).st_ino == int(inode):  # else it is none that this process was started with
            shared = Marks(number)
            os.close(number)
            return shared
    except (OSError, ValueError):
        pass
    return Marks()


def memory() -> tuple[Marks, int, str]:
    """What a parent makes: the marks, a descriptor that the child gets, and the variable's value."""
    descriptor = os.memfd_create("pvops-marks", 0)
    os.ftruncate(descriptor, _SIZE)
    return Marks(descriptor), descriptor, f"{descriptor}:{os.fstat(descriptor).st_ino}"
