"""Ramdisks for tests: one that there is, with another ``/init``, and what an archive holds (cpio's newc format)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from pvops_core.images.cpio import Entry, archive

_HEAD = 110
_END = "TRAILER!!!"

WATCHING = b"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
while :; do :; done &
while :; do /bin/busybox cat /proc/self/maps > /dev/null; done &
old=
while :; do
  read -r new < /proc/version
  if [ "$new" != "$old" ]; then echo "seen $new"; old=$new; fi
done
"""
"""Says what /proc/version shows whenever that changes, while one process computes and others come and go."""


def with_init(ramdisk: Path, init: bytes) -> bytes:
    """A ramdisk with another ``/init``."""
    there = [each for each in entries(gzip.decompress(ramdisk.read_bytes())) if each[0] not in {".", _END}]
    return archive(Entry(name, f[1], init if name == "init" else data, (f[9], f[10])) for name, f, data in there)


def entries(data: bytes) -> Iterator[tuple[str, list[int], bytes]]:
    """Name, the header's numbers and data of each entry, the trailer too."""
    at, name = 0, ""
    while name != _END:
        fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        name = data[at + _HEAD : at + _HEAD + fields[11] - 1].decode()
        start = _aligned(at + _HEAD + fields[11])
        end = start + fields[6]
        yield name, fields, data[start:end]
        at = _aligned(end)


def _aligned(offset: int) -> int:
    return offset + 3 & -4
