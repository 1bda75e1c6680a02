"""What takes long to make and follows from what it is made of alone, kept on disk by kind and name.

It is in the user's cache folder, by the sources that make it as well. What is not there, is damaged or could be of
somebody else is made again; a folder that cannot be written costs no more than that.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import xxhash

from pvops_core.cachefolder import cache_folder
from pvops_core.mapped import ByteString, MappedBytes, mapped
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from io import FileIO

Body = TypeVar("Body", bytes, MappedBytes)
CORE: Final = Path(__file__).parent
_FRONT: Final = struct.Struct("<16sI")
"""Digest (XXH3, 128 bits) of all that follows; bytes of the front."""
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


KINDS: Final = {
    "images": "what packed kernels hold",
    "symbols": "symbols of kernels",
    "members": "tables of ops of kernels, by their type information",
    "code": "machine code of callbacks",
    "summaries": "what plugins' sources say",
    "layouts": "structures of C headers",
    "verdicts": "which backends were found sound",
    "ramdisks": "initial ramdisks with a shell",
}
"""All that is kept so, by the names of their folders."""


@attrs.frozen
class Kept:
    """Things of a kind by name; each is a front of a few bytes and a body.

    Attributes:
        kind: name of their folder.
        makers: the modules that make them, as paths below ``pvops_core`` without their endings.
        most: how many are kept; those used longest ago go.
        environ: whose cache folder.
    """

    kind: str
    makers: tuple[str, ...]
    most: int
    environ: Mapping[str, str] = attrs.field(factory=lambda: os.environ)

    def _file(self, name: str) -> Path | None:
        folder = cache_folder(self.environ)
        sources = b"".join(CORE.joinpath(f"{each}.py").read_bytes() for each in self.makers)
        return folder and folder / self.kind / f"{name}-{xxhash.xxh3_64_hexdigest(sources)}"

    def read(self, name: str) -> tuple[bytes, bytes] | None:
        """What is kept under a name; None if nothing is, it is damaged, or others than the user may write it."""
        return self._found(name, lambda file, _start: file.readall())

    def map(self, name: str) -> tuple[bytes, MappedBytes] | None:
        """As :meth:`read`, of what was written ``aligned``: the body stays in the file."""
        return self._found(name, lambda file, start: mapped(file.fileno(), start))

    def _found(self, name: str, take: Callable[[FileIO, int], Body]) -> tuple[bytes, Body] | None:
        try:
            file = self._file(name)
            if file is None:
                return None
            with file.open("rb", buffering=0) as opened:
                if not _own(os.fstat(opened.fileno())):
                    return None
                digest, length = _FRONT.unpack(opened.read(_FRONT.size))
                front, body = opened.read(length), take(opened, _FRONT.size + length)
            if _digest(length, front, body) != digest:
                return None
            os.utime(file)
        except (OSError, ValueError, struct.error):
            return None
        return front, body

    def write(self, name: str, front: bytes, body: bytes, *, aligned: bool = False) -> None:
        """Keep something under a name, if that can be done.

        Args:
            name: the name.
            front: a few bytes.
            body: the rest.
            aligned: have the body begin at a page, as :meth:`map` needs it, with zeros behind the front.
        """
        if aligned:
            front += bytes(-(_FRONT.size + len(front)) % PAGE)
        with contextlib.suppress(OSError, ValueError):
            file = self._file(name)
            if file is None:
                return
            beside = file.with_name(f".{file.name}.{os.getpid()}")
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with open(beside, "wb", opener=_private) as opened:
                    opened.writelines((_FRONT.pack(_digest(len(front), front, body), len(front)), front, body))
                beside.replace(file)
            finally:
                beside.unlink(missing_ok=True)
            used = sorted(file.parent.glob("[!.]*"), key=lambda each: each.stat().st_mtime)
            for each in used[: -self.most]:
                each.unlink(missing_ok=True)


def files_of(kind: str, environ: Mapping[str, str]) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a kind, those of processes that died while they wrote among them, as far as they can be seen."""
    folder = cache_folder(environ)
    with contextlib.suppress(OSError):
        for file in folder.joinpath(kind).iterdir() if folder else ():
            with contextlib.suppress(OSError):
                yield file, file.stat()


def _own(state: os.stat_result) -> bool:
    return state.st_uid == os.geteuid() and not state.st_mode & _OTHERS


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _digest(length: int, front: bytes, body: ByteString) -> bytes:
    digest = xxhash.xxh3_128(length.to_bytes(4, "little"))
    digest.update(front)
    digest.update(body)
    return digest.digest()
