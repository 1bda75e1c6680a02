"""What is made of a kernel's image alone, kept on disk: to unpack it and read its symbols takes a quarter of a second.

It is in the user's cache folder, by the hash of what it is made of and by the sources that make it. What is not there,
or is damaged, is made again; a folder that cannot be written costs no more than that.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import xxhash

from pvops_core.cachefolder import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

_CORE: Final = Path(__file__).parents[1]
_FRONT: Final = struct.Struct("<16sI")
"""Digest (XXH3, 128 bits) of all that follows; bytes of the front."""


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
        sources = b"".join(_CORE.joinpath(f"{each}.py").read_bytes() for each in self.makers)
        return folder and folder / self.kind / f"{name}-{xxhash.xxh3_64_hexdigest(sources)}"

    def read(self, name: str) -> tuple[bytes, bytes] | None:
        """What is kept under a name; None if nothing is, or it is damaged."""
        try:
            file = self._file(name)
            if file is None:
                return None
            with file.open("rb", buffering=0) as opened:
                digest, length = _FRONT.unpack(opened.read(_FRONT.size))
                front, body = opened.read(length), opened.readall()
            if _digest(length, front, body) != digest:
                return None
            os.utime(file)
        except (OSError, ValueError, struct.error):
            return None
        return front, body

    def write(self, name: str, front: bytes, body: bytes) -> None:
        """Keep something under a name, if that can be done."""
        with contextlib.suppress(OSError, ValueError):
            file = self._file(name)
            if file is None:
                return
            beside = file.with_name(f".{file.name}.{os.getpid()}")
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with beside.open("wb") as opened:
                    opened.writelines((_FRONT.pack(_digest(len(front), front, body), len(front)), front, body))
                beside.replace(file)
            finally:
                beside.unlink(missing_ok=True)
            used = sorted(file.parent.glob("[!.]*"), key=lambda each: each.stat().st_mtime)
            for each in used[: -self.most]:
                each.unlink(missing_ok=True)


def _digest(length: int, front: bytes, body: bytes) -> bytes:
    digest = xxhash.xxh3_128(length.to_bytes(4, "little"))
    digest.update(front)
    digest.update(body)
    return digest.digest()
