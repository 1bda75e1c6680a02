"""Records of what real kernels did to their own sites, to hold a boot against: files of format ``pvops-oracle/1``.

A record says of one boot, on whatever machine, the kernel's hash, its table of ops when it patched itself, and every
site's bytes as built, after the paravirt step and after alternatives.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import attrs

from pvops_core.errors import ImageError

FORMAT: Final = "pvops-oracle/1"
_SUFFIXES: Final = (".json", ".json.gz")
_LARGEST: Final = 64 << 20


@attrs.frozen
class Record:
    """One recorded boot.

    Attributes:
        path: its file.
        run: what it calls the boot.
        sha256: hex digest of the unpacked vmlinux.
        table: what each slot held, by type number; 0 for an empty one.
        paravirt: site address to its bytes after the paravirt step.
        final: the same after alternatives.
    """

    path: str
    run: str
    sha256: str
    table: tuple[int, ...] = attrs.field(repr=False)
    paravirt: Mapping[int, bytes] = attrs.field(repr=False)
    final: Mapping[int, bytes] = attrs.field(repr=False)


def find_records(folder: Path, sha256: str) -> tuple[Record, ...]:
    """The records of one kernel in a folder, by file name.

    Raises:
        ImageError: the folder cannot be read, or a file in it that calls itself a record is damaged.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES))
    except OSError as failure:
        raise ImageError(f"cannot be read: {failure.strerror}", str(folder)) from failure
    found = (_read(path) for path in files)
    return tuple(record for record in found if record is not None and record.sha256 == sha256)


def _read(path: Path) -> Record | None:
    """The record in a file; None for JSON of another kind."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = _unpack(data, path)
        document = json.loads(data)
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as failure:
        raise ImageError(f"cannot be read: {failure}", str(path)) from failure
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        return None
    try:
        return _record(path, document)
    except (KeyError, TypeError, ValueError, OverflowError) as failure:
        raise ImageError(f"is no {FORMAT} record: {failure!r}", str(path)) from failure


def _unpack(data: bytes, path: Path) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    unpacked = unpacker.decompress(data, _LARGEST)
    if unpacker.unconsumed_tail:
        raise ImageError(f"unpacks to more than {_LARGEST >> 20} MiB", str(path))
    return unpacked


def _record(path: Path, document: Mapping[str, Any]) -> Record:
    addresses = list(accumulate(document["dva"], initial=int(document["va0"], 16)))[1:]
    lengths = [int(length) for length in document["len"]]
    if not len(addresses) == len(lengths) == document["n"]:
        raise ValueError(f"n is {document['n']}, but dva has {len(addresses)} entries and len {len(lengths)}")
    return Record(
        str(path),
        str(document["run"]),
        str(document["vmlinux_sha256"]),
        tuple(int(target, 16) for _op, target, _symbol in document["ops"]),
        *(dict(zip(addresses, _cut(document[step], lengths), strict=True)) for step in ("pv", "final")),
    )


def _cut(text: str, lengths: list[int]) -> Iterator[bytes]:
    data = bytes.fromhex(text)
    if len(data) != sum(lengths) or min(lengths, default=1) < 1:
        raise ValueError(f"{len(data)} bytes for sites of {sum(lengths)}")
    ends = list(accumulate(lengths))
    return (data[end - length : end] for end, length in zip(ends, lengths, strict=True))
