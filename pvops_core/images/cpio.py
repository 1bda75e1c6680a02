"""Writes archives that a kernel unpacks as its first root: cpio in the newc format, the same bytes for the same files.

Source: Documentation/driver-api/early-userspace/buffer-format.rst, and init/initramfs.c for what it does with a name.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from pvops_core.errors import ImageError

_TRAILER: Final = "TRAILER!!!"
_LONGEST: Final = 4096
"""PATH_MAX, its NUL included: the kernel passes over what has a longer name, or points to one."""
_LARGEST: Final = 0xFFFFFFFF
_BLOCK: Final = 512
"""Archives end at a multiple of this, as cpio writes them; another may follow, which the kernel unpacks too."""


@attrs.frozen
class Entry:
    """A file of an archive.

    Attributes:
        name: its path from the root, without a slash in front.
        mode: type and permissions, as in ``st_mode``.
        data: contents; of a symbolic link where it points.
        device: major and minor number of a device.
    """

    name: str
    mode: int
    data: bytes = attrs.field(default=b"", repr=False)
    device: tuple[int, int] = (0, 0)

    @property
    def encoded(self) -> bytes:
        """The name's bytes; one that a file system has, and that is no UTF-8, as they are there."""
        return self.name.encode(errors="surrogateescape")

    @classmethod
    def file(cls, name: str, data: bytes, permissions: int = 0o644) -> Entry:
        """A regular file."""
        return cls(name, stat.S_IFREG | permissions, data)

    @classmethod
    def folder(cls, name: str, permissions: int = 0o755) -> Entry:
        """A folder."""
        return cls(name, stat.S_IFDIR | permissions)

    @classmethod
    def link(cls, name: str, target: str) -> Entry:
        """A symbolic link."""
        return cls(name, stat.S_IFLNK | 0o777, target.encode(errors="surrogateescape"))

    @classmethod
    def character_device(cls, name: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
        """A device that is read and written as a stream, such as ``dev/console`` (5, 1)."""
        return cls(name, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive: all files owned by root, of 1970, in the order of their paths; folders that they need are added.

    Raises:
        ImageError: two entries have one name, one lies in what is no folder, or one cannot be told in this format.
    """
    whole = b"".join(_packed(number, entry) for number, entry in enumerate(_whole(entries), 1))
    whole += _packed(0, Entry(_TRAILER, 0))
    return whole + bytes(-len(whole) % _BLOCK)


def _whole(entries: Iterable[Entry]) -> Iterator[Entry]:
    """All entries, each after the folder that it lies in; the kernel leaves out a file whose folder is not there."""
    found: dict[str, Entry] = {}
    for entry in entries:
        _check(entry)
        if entry.name in found:
            raise ImageError("is there twice", field=entry.name)
        found[entry.name] = entry
    for name in tuple(found):
        above = name
        while above := posixpath.dirname(above):
            if not stat.S_ISDIR(found.setdefault(above, Entry.folder(above)).mode):
                raise ImageError(f"lies in {above}, which is no folder", field=name)
    yield from (found[name] for name in sorted(found, key=lambda name: name.split("/")))


def _check(entry: Entry) -> None:
    name, wrong = entry.encoded, ""
    if not name or name.startswith(b"/") or posixpath.normpath(name) != name or name.split(b"/")[0] in {b".", b".."}:
        wrong = "is no path from the root, such as bin/sh"
    elif b"\0" in name or entry.name == _TRAILER:
        wrong = "cannot be a name in a cpio archive"
    elif len(name) >= _LONGEST or (stat.S_ISLNK(entry.mode) and len(entry.data) >= _LONGEST):
        wrong = f"is longer than the {_LONGEST - 1} bytes that a kernel takes of a path"
    elif len(entry.data) > _LARGEST:
        wrong = f"has {len(entry.data):,} bytes; a file in a cpio archive has at most {_LARGEST:,}"
    elif not (0 <= entry.mode < 1 << 16 and 0 <= entry.device[0] < 1 << 12 and 0 <= entry.device[1] < 1 << 20):
        wrong = "has a mode of more than 16 bits, or a device number of more than 12 and 20"
    if wrong:
        raise ImageError(wrong, field=entry.name)


def _packed(number: int, entry: Entry) -> bytes:
    """A header of 110 bytes, the name, the data; the last two each up to a multiple of four from the beginning.

    The header is the magic and 13 numbers of 8 hexadecimal digits: inode, mode, user, group, links, time, size; device
    of the file system (two), device (two), length of the name with its NUL, checksum.
    """
    name = entry.encoded + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1  # of files with more the kernel would look for their other names
    numbers = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % each for each in numbers)
    return b"".join(part + bytes(-len(part) % 4) for part in (header + name, entry.data))
