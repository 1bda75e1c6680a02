"""Records of real boots (``pvops-oracle/2``), as far as alternatives go: the CPU's features, and what each became."""

from __future__ import annotations

import json
import zlib
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import attrs

from pvops_core.errors import ImageError
from pvops_core.images.load import read_file
from pvops_core.patching.capabilities import read_capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pvops_core.images import KernelImage

FORMAT: Final = "pvops-oracle/2"
GZIP: Final = b"\x1f\x8b"
LARGEST: Final = 64 << 20
"""Most bytes that a record unpacks to; those of distribution kernels have some 500 KiB."""


@attrs.frozen(eq=False)
class BootRecord:
    """What one boot found and did.

    Attributes:
        run: what the record calls the boot.
        features: numbers of the CPU features that the kernel found.
        finals: address of each place with alternatives to its bytes after them.
    """

    run: str
    features: frozenset[int] = attrs.field(repr=False)
    finals: Mapping[int, bytes] = attrs.field(repr=False)


def read_boot_record(path: Path, image: KernelImage) -> BootRecord:
    """Read a record of a boot of this kernel; a file of JSON, packed by gzip or not.

    Raises:
        ImageError: the file cannot be read, is no such record or a damaged one, or is of another kernel.
    """
    data = read_file(path, str(path))
    try:
        if data.startswith(GZIP):
            data = _unpack(data)
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ImageError(f"is no {FORMAT} record", str(path), field="format")
        if document["vmlinux_sha256"] != image.sha256:
            message = f"is of another kernel than {image.path}: its vmlinux is {document['vmlinux_sha256']}"
            raise ImageError(message, str(path), field="vmlinux_sha256")
        head = bytes.fromhex(document["boot_cpu_data_head"])
        return BootRecord(str(document["run"]), read_capabilities(image, head), _finals(document["alternatives"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, zlib.error) as failure:
        raise ImageError(f"is no whole {FORMAT} record: {failure!r}", str(path)) from failure


def _unpack(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    unpacked = unpacker.decompress(data, LARGEST)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError(f"cut off, or more than {LARGEST >> 20} MiB")
    return unpacked


def _finals(groups: Mapping[str, Any]) -> dict[int, bytes]:
    addresses = list(accumulate(groups["dva"], initial=int(groups["va0"], 16)))[1:]
    lengths, data = [int(length) for length in groups["len"]], bytes.fromhex(groups["final"])
    ends = list(accumulate(lengths))
    if len(addresses) != len(lengths) or min(lengths, default=1) < 1 or len(data) != sum(lengths):
        raise ValueError(f"{len(data)} bytes for {len(addresses)} places of {sum(lengths)}")
    cut = (data[end - length : end] for end, length in zip(ends, lengths, strict=True))
    return dict(zip(addresses, cut, strict=True))
