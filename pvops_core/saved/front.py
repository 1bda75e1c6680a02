"""The front of a saved session's file: how it lies, what it must fit, how it came about. Nothing heavy is imported."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec
import xxhash

from pvops_core.saved.errors import SavedError
from pvops_core.saved.key import Key
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = 1
# A control-Z and a line end, as in PNG's signature, show a file that was converted as text.
MAGIC: Final = b"pvops\x1as\n"
_PRELUDE: Final = struct.Struct("<8sIIQQQ16s")
"""Magic, version, bytes of the head, of the states, where memory begins, bytes of memory, digest of all before that."""
_UNDIGESTED: Final = _PRELUDE.size - 16
# Somebody else may have made the file: no length in it makes us take more than a session can have.
HEAD_LIMIT: Final = 16 << 20
STATES_LIMIT: Final = 1 << 30
MEMORY_LIMIT: Final = 1 << 36


class Making(msgspec.Struct, frozen=True):
    """How the session was made, for who wants to make it again without being told; nothing is believed because of it.

    Attributes:
        kernel: path of the kernel; empty for none.
        initrd: path of its ramdisk; empty for none.
        options: settings of the platform, as they were given.
        memory: bytes of the guest's memory.
    """

    kernel: str
    initrd: str
    options: dict[str, str]
    memory: int


class Head(msgspec.Struct, frozen=True):
    """What a file says of itself.

    Attributes:
        key: what it must fit.
        origin: how the session was made.
        place: where the guest stood, in words; for people.
        vcpu: index of the vCPU that had come there.
        ns: virtual time, for people.
        runs: the pages that are in the file: number of the first, and how many, ascending.
        memory: digest of these.
    """

    key: Key
    origin: Making
    place: str
    vcpu: Annotated[int, msgspec.Meta(ge=0)]
    ns: int
    runs: tuple[tuple[int, int], ...]
    memory: bytes


class Front(NamedTuple):
    """A file's head and states, and where its memory begins and how long it is."""

    head: Head
    states: bytes
    begin: int
    size: int


def pack(head: Head, states: bytes, size: int) -> tuple[bytes, int]:
    """The front of a file, and where memory of a size begins behind it."""
    packed = msgspec.msgpack.encode(head)
    # At a page's border, so that memory can be mapped from the file.
    begin = _PRELUDE.size + len(packed) + len(states) + PAGE - 1 & -PAGE
    prelude = _PRELUDE.pack(MAGIC, VERSION, len(packed), len(states), begin, size, bytes(16))[:_UNDIGESTED]
    return prelude + _digest(prelude, packed, states) + packed + states, begin


def _digest(*parts: bytes) -> bytes:
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return digest.digest()


def read_head(path: Path) -> Head:
    """What a file says of itself, its memory unread.

    Raises:
        SavedError: it cannot be read, is no saved session, of another version, or its front is damaged.
    """
    with opened(path) as file:
        return read_front(file, str(path)).head


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a regular file; SavedError if there is none."""
    try:
        # O_NONBLOCK, or the open of a FIFO would wait for somebody who writes (open(2)); it is refused below.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as failure:
        raise unreadable(path, failure) from failure
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise SavedError("is not a regular file", str(path))
        yield file
    finally:
        os.close(file)


def unreadable(path: Path, failure: Exception) -> SavedError:
    """The error for a file that the host does not read."""
    return SavedError(f"cannot be read: {getattr(failure, 'strerror', None) or failure}", str(path))


def read_front(file: int, path: str) -> Front:
    """The front of a file; SavedError as for :func:`read_head`."""
    head_size, states_size, begin, size, digest = _prelude(file, path)
    rest = os.pread(file, begin - _PRELUDE.size, _PRELUDE.size)
    head, states = rest[:head_size], rest[head_size : head_size + states_size]
    if _digest(os.pread(file, _UNDIGESTED, 0), head, states) != digest:
        raise SavedError("is damaged: it does not have the digest that it says", path, field="head and states")
    # What the digest does not cover must be nothing, or files of one digest could differ.
    if rest[head_size + states_size :].strip(b"\0"):
        raise SavedError("is damaged: there is something between its parts", path, field="before memory")
    try:
        return Front(msgspec.msgpack.decode(head, type=Head), states, begin, size)
    except (msgspec.MsgspecError, RecursionError) as failure:
        raise SavedError(f"does not say what it is: {failure}", path, field="head", offset=_PRELUDE.size) from failure


def _prelude(file: int, path: str) -> tuple[int, int, int, int, bytes]:
    prelude, there = os.pread(file, _PRELUDE.size, 0), os.fstat(file).st_size
    if prelude[: len(MAGIC)] != MAGIC:
        raise SavedError("is no saved session", path, offset=0, field="magic")
    if len(prelude) < _PRELUDE.size:
        raise SavedError(f"ends within its first {_PRELUDE.size} bytes", path, offset=len(prelude))
    _magic, version, head, states, begin, size, digest = _PRELUDE.unpack(prelude)
    if version != VERSION:
        told = f"has format {version}; this pvops reads format {VERSION}"
        raise SavedError(told, path, offset=len(MAGIC), field="version", saved=str(version), here=str(VERSION))
    limits = (("head", head, HEAD_LIMIT), ("states", states, STATES_LIMIT), ("memory", size, MEMORY_LIMIT))
    for field, length, most in limits:
        if length > most:
            raise SavedError(f"says {length:#x} bytes; the most is {most:#x}", path, field=field)
    if not size or size % PAGE or begin != _PRELUDE.size + head + states + PAGE - 1 & -PAGE:
        raise SavedError(f"memory of {size:#x} bytes cannot be at {begin:#x}", path, field="memory")
    if there != begin + size:
        raise SavedError(f"is {there:#x} bytes long and says {begin + size:#x}", path, field="size")
    return head, states, begin, size, digest
