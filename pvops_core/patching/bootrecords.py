"""Records of what real kernels did to their own text, to hold a boot or a plan against.

A record says of one boot, on whatever machine, the kernel's hash, its table of ops when it patched itself, and every
site's bytes as they were built and after each step of patching. ``pvops-oracle/1`` is of kernels with a paravirt step;
``pvops-oracle/2`` is of those that patch in one step, and says of every other place with alternatives what became of
it, and which features the CPU had.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from pvops_core.errors import ImageError
from pvops_core.images.reading import read_file
from pvops_core.patching.altinstructions.capabilities import read_capabilities

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

STEPS: Final = {
    "pvops-oracle/1": {"paravirt": "pv", "final": "final"},
    "pvops-oracle/2": {"final": "final"},
}
"""Format to the steps of patching that it has, and the member that holds the bytes of the sites after each."""

# Records of big kernels are packed, small ones are left readable.
_SUFFIXES: Final = (".json", ".json.gz")
_GZIP: Final = b"\x1f\x8b"
_LARGEST: Final = 64 << 20
"""Most bytes that a record unpacks to; those of distribution kernels have some 500 KiB."""


@attrs.frozen(eq=False)
class BootRecord:
    """One recorded boot.

    Attributes:
        path: its file.
        run: what it calls the boot.
        sha256: hex digest of the unpacked vmlinux.
        table: what each slot held, by type number; 0 for an empty one.
        sites: step of patching to the bytes of each site after it, by address.
        alternatives: bytes of every place with alternatives after them, by address; empty where it does not say.
        ends: the same when the kernel had taken its last step of patching.
        boot_cpu_data: the beginning of that variable of the kernel's; empty where it does not say.
    """

    path: str
    run: str
    sha256: str
    table: tuple[int, ...] = attrs.field(repr=False)
    sites: Mapping[str, Mapping[int, bytes]] = attrs.field(repr=False)
    alternatives: Mapping[int, bytes] = attrs.field(factory=dict, repr=False)
    ends: Mapping[int, bytes] = attrs.field(factory=dict, repr=False)
    boot_cpu_data: bytes = attrs.field(default=b"", repr=False)

    def features(self, image: KernelImage) -> frozenset[int]:
        """Numbers of the CPU features that the kernel found.

        Raises:
            ImageError: the record does not say, or the kernel does not say where they are.
        """
        if not self.boot_cpu_data:
            raise ImageError("does not say which features the CPU had", self.path, field="boot_cpu_data_head")
        return read_capabilities(image, self.boot_cpu_data)


def find_records(folder: Path, sha256: str) -> tuple[BootRecord, ...]:
    """The records of one kernel in a folder, by file name; JSON of another kind is passed over.

    Raises:
        ImageError: the folder cannot be read, or a file in it that calls itself a record is damaged.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES))
    except OSError as failure:
        raise ImageError(f"cannot be read: {failure.strerror}", str(folder)) from failure
    documents = ((path, _document(path)) for path in files)
    # A folder may hold other JSON beside them, which is nobody's mistake.
    found = (_record(path, document) for path, document in documents if _format(document))
    return tuple(record for record in found if record.sha256 == sha256)


def read_record(path: Path, image: KernelImage) -> BootRecord:
    """Read a record of a boot of this kernel; a file of JSON, packed by gzip or not.

    Raises:
        ImageError: the file cannot be read, is no record or a damaged one, or is of another kernel.
    """
    document = _document(path)
    if not _format(document):
        raise ImageError(f"is no record: its format is none of {', '.join(STEPS)}", str(path), field="format")
    record = _record(path, document)
    # By the hash of the unpacked image: one kernel is packed in many ways.
    if record.sha256 != image.sha256:
        message = f"is of another kernel than {image.path}: its vmlinux is {record.sha256}"
        raise ImageError(message, str(path), field="vmlinux_sha256")
    return record


def _document(path: Path) -> Any:  # noqa: ANN401 - whatever JSON there is
    data = read_file(path, str(path))
    try:
        return json.loads(_unpack(data) if data.startswith(_GZIP) else data)
    except (ValueError, zlib.error, RecursionError) as failure:
        raise ImageError(f"cannot be read: {failure}", str(path)) from failure


def _unpack(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    # One byte more than allowed is left in ``unconsumed_tail``, so a bomb never unpacks.
    unpacked = unpacker.decompress(data, _LARGEST)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError(f"cut off, or more than {_LARGEST >> 20} MiB")
    return unpacked


def _format(document: object) -> str:
    """The format of a record; empty for JSON of another kind."""
    said = document.get("format") if isinstance(document, dict) else None
    return said if isinstance(said, str) and said in STEPS else ""


def _record(path: Path, document: Mapping[str, Any]) -> BootRecord:
    format_ = _format(document)
    try:
        groups = document.get("alternatives")
        finals = {} if groups is None else _places(groups, "final")
        return BootRecord(
            str(path),
            str(document["run"]),
            str(document["vmlinux_sha256"]),
            tuple(int(target, 16) for _op, target, _symbol in document["ops"]),
            {step: _places(document, member) for step, member in STEPS[format_].items()},
            finals,
            _later(finals, [] if groups is None else groups.get("end_differs", [])),
            bytes.fromhex(document.get("boot_cpu_data_head", "")),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as failure:
        raise ImageError(f"is no whole {format_} record: {failure!r}", str(path)) from failure


def _places(columns: Mapping[str, Any], member: str) -> dict[int, bytes]:
    """The bytes of each place in a member, which has them one after another, by address."""
    # Addresses are kept as distances, which are small numbers and pack well.
    addresses = list(accumulate(columns["dva"], initial=int(columns["va0"], 16)))[1:]
    lengths, data = [int(length) for length in columns["len"]], bytes.fromhex(columns[member])
    # Every column speaks of the same places: a record that lacks some of one would shift all others.
    if not len(addresses) == len(lengths) == columns["n"] or min(lengths, default=1) < 1 or len(data) != sum(lengths):
        places = f"{columns['n']} places: {len(addresses)} addresses, {len(lengths)} lengths, together {sum(lengths)}"
        raise ValueError(f"{member} has {len(data)} bytes for {places}")
    return dict(zip(addresses, _cut(data, lengths), strict=True))


def _later(finals: Mapping[int, bytes], differing: Sequence[tuple[int, str]]) -> dict[int, bytes]:
    """The places with those that were changed once more, which are given by number."""
    addresses = list(finals)
    if any(not 0 <= number < len(addresses) for number, _code in differing):
        raise ValueError(f"end_differs has numbers of none of {len(addresses)} places")
    return {**finals, **{addresses[number]: bytes.fromhex(code) for number, code in differing}}


def _cut(data: bytes, lengths: list[int]) -> Iterator[bytes]:
    ends = list(accumulate(lengths))
    return (data[end - length : end] for end, length in zip(ends, lengths, strict=True))
