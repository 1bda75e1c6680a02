"""Ramdisks for tests: one that there is, with another ``/init`` or more files (cpio's newc format)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

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
    made = bytearray()
    for name, fields, data in _entries(gzip.decompress(ramdisk.read_bytes())):
        body = init if name == "init" else data
        fields[6], fields[11] = len(body), len(name) + 1
        made += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        made += bytes(-len(made) % 4)
        made += body
        made += bytes(-len(made) % 4)
    return bytes(made)


def archive(name: str, data: bytes) -> bytes:
    """A cpio archive (newc) of one executable file; the kernel unpacks any number of them one after the other."""

    def entry(name: str, data: bytes, mode: int) -> bytes:
        fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

    return entry(name, data, 0o100755) + entry("TRAILER!!!", b"", 0)


def _entries(data: bytes) -> Iterator[tuple[str, list[int], bytes]]:
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
