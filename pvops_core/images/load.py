"""From a file to a :class:`KernelImage`: tells bzImage from ELF, unpacks, reads the headers."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pvops_core.errors import ImageError
from pvops_core.images.bzimage import ELF_MAGIC, UNPACKED_LIMIT, is_bzimage, unpack_bzimage
from pvops_core.images.elf import read_headers
from pvops_core.images.model import KernelImage
from pvops_core.images.reading import read_file
from pvops_core.kept import Kept

if TYPE_CHECKING:
    from pvops_core.mapped import ByteString

GZIP_MAGIC: Final = b"\x1f\x8b"
# linux_banner; the second banner, for /proc/version, has %s in place of the release.
WORTH: Final = 1 << 20
"""Bytes of a packed kernel from which on what it holds is kept."""
_KEPT: Final = Kept("images", ("images/bzimage", "images/decompress", "images/load"), 4)
_DIGITS: Final = 64
_BANNER: Final = re.compile(rb"Linux version ([!-~]{1,64}) \(")


def load_image(source: Path | str | bytes, name: str = "") -> KernelImage:
    """Read a kernel: a bzImage with any payload that :mod:`.decompress` knows, or an ELF file, perhaps packed by gzip.

    Args:
        source: a path, or the bytes of the file.
        name: what messages call it; by default the path.

    Raises:
        ImageError: the file cannot be read, is no x86 kernel, or is damaged.
    """
    if isinstance(source, bytes):
        packed, path = source, name or "image"
    else:
        path = name or str(source)
        packed = read_file(Path(source), path)
    data, sha256, release = _unpacked(packed, path)
    headers = read_headers(data, path)
    return KernelImage(
        path=path,
        data=data,
        sha256=sha256,
        release=release,
        machine=headers.machine,
        entry=headers.entry,
        sections=headers.sections,
        segments=headers.segments,
        notes=headers.notes,
    )


def _gunzip(data: bytes, path: str) -> bytes:
    """A kernel that is compressed as a whole, as those of unikernels are: Xen's loader takes gzip (xg_dom_core.c)."""
    from pvops_core.images.decompress import CompressionError, unpack  # noqa: PLC0415 - a library for each compression

    try:
        return unpack(data, UNPACKED_LIMIT, ELF_MAGIC)
    except CompressionError as failure:
        raise ImageError(str(failure), path, 0) from failure


def _unpacked(data: bytes, path: str) -> tuple[ByteString, str, str]:
    """What is in a file, the SHA-256 of that, and the release; what is packed and large is unpacked once and kept."""
    if not is_bzimage(data):
        data = _gunzip(data, path) if data.startswith(GZIP_MAGIC) else data
        return data, hashlib.sha256(data).hexdigest(), _banner_release(data)
    # Below that, unpacking is faster than looking.
    name = hashlib.sha256(data).hexdigest() if len(data) >= WORTH else ""
    found = _KEPT.map(name) if name else None
    if found is not None:
        front, body = found
        return body, front[:_DIGITS].decode(), front[_DIGITS:].rstrip(b"\0").decode()
    unpacked, header = unpack_bzimage(data, path)
    # The header's, for the banner is the unpacked kernel's and may be of another build.
    sha256, release = hashlib.sha256(unpacked).hexdigest(), header.release or _banner_release(unpacked)
    if name:
        _KEPT.write(name, (sha256 + release).encode(), unpacked, aligned=True)
    return unpacked, sha256, release


def _banner_release(data: bytes) -> str:
    found = _BANNER.search(data)
    return found[1].decode("ascii") if found else ""
