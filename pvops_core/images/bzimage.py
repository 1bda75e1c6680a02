"""The bzImage container (Documentation/arch/x86/boot.rst): from the boot header to the unpacked kernel."""

from __future__ import annotations

import struct
from typing import Final

import attrs

from pvops_core.errors import ImageError

BOOT_FLAG: Final = 0x1FE
HEADER_MAGIC: Final = 0x202
VERSION: Final = 0x206
KERNEL_VERSION: Final = 0x20E
PAYLOAD_OFFSET: Final = 0x248
SETUP_SECTS: Final = 0x1F1
HEADER_END: Final = 0x250
PAYLOAD_PROTOCOL: Final = 0x208
"""First boot protocol with payload_offset and payload_length (Linux 2.6.26)."""

UNPACKED_LIMIT: Final = 256 << 20
"""Most bytes a kernel may unpack to. Distribution kernels reach 70 MiB; the decompressor's own window ends at 1 GiB."""

ELF_MAGIC: Final = b"\x7fELF"


@attrs.frozen
class BootHeader:
    """The parts of ``struct setup_header`` that lead to the payload.

    Attributes:
        protocol: boot protocol version, major in the high byte.
        release: first word of the kernel's version string; empty if there is none.
        payload: offset in the file of the compressed kernel.
        length: its length in bytes, with the appended unpacked size.
    """

    protocol: int
    release: str
    payload: int
    length: int


def is_bzimage(data: bytes) -> bool:
    """Whether ``data`` has a boot sector with the ``HdrS`` header."""
    # Boot flag at 0x1fe, "HdrS" at 0x202 (boot.rst).
    return data[HEADER_MAGIC : HEADER_MAGIC + 4] == b"HdrS" and data[BOOT_FLAG:HEADER_MAGIC][:2] == b"\x55\xaa"


def read_header(data: bytes, path: str) -> BootHeader:
    """Read the boot header.

    Raises:
        ImageError: the file ends inside it, or the payload lies outside the file.
    """
    if len(data) < HEADER_END:
        raise ImageError(
            f"the file ends inside the boot header, after {len(data):#x} bytes", path, len(data), "setup_header"
        )
    (protocol,) = struct.unpack_from("<H", data, VERSION)
    # A setup_sects of 0 means 4, for images older than the field.
    code = ((data[SETUP_SECTS] or 4) + 1) * 512
    if protocol >= PAYLOAD_PROTOCOL:
        start, length = struct.unpack_from("<II", data, PAYLOAD_OFFSET)
        payload = code + start
        # At least the last four bytes, the size, and a magic number.
        if payload + 8 > len(data):
            raise ImageError(
                f"the payload begins at {payload:#x}, past the end", path, PAYLOAD_OFFSET, "payload_offset"
            )
        if length < 8 or payload + length > len(data):
            message = f"a payload of {length:#x} bytes at {payload:#x} does not fit the file's {len(data):#x}"
            raise ImageError(message, path, PAYLOAD_OFFSET + 4, "payload_length")
    else:
        # Before the fields existed every payload was gzip, method deflate, right behind the decompressor.
        payload = data.find(b"\x1f\x8b\x08", code)
        length = len(data) - payload
        if payload < 0:
            raise ImageError("no gzip stream after the set-up code", path, code, "payload")
    return BootHeader(protocol, _release(data), payload, length)


def _release(data: bytes) -> str:
    (start,) = struct.unpack_from("<H", data, KERNEL_VERSION)
    # Zero: the image has no version string.
    if not start:
        return ""
    # kernel_version points 0x200 below the string.
    text = data[start + 0x200 : start + 0x400].split(b"\0", 1)[0]
    return text.decode("ascii", "replace").split(" ", 1)[0]


def unpack_bzimage(data: bytes, path: str) -> tuple[bytes, BootHeader]:
    """The unpacked kernel of a bzImage, with the ``struct setup_header`` that led to it.

    Raises:
        ImageError: damaged header or payload, an unknown compression, or more output than declared.
    """
    from pvops_core.images.decompress import CompressionError, unpack  # noqa: PLC0415 - a library for each compression

    header = read_header(data, path)
    payload = data[header.payload : header.payload + header.length]
    if payload.startswith(ELF_MAGIC):
        return payload, header  # CONFIG_KERNEL_UNCOMPRESSED
    limit, exact = UNPACKED_LIMIT, None
    if header.protocol >= PAYLOAD_PROTOCOL:
        # The build appends it, little-endian (size_append).
        exact = int.from_bytes(payload[-4:], "little")
        # Refused by what it claims, before anything is unpacked.
        if exact > UNPACKED_LIMIT:
            message = f"declares {exact:#x} unpacked bytes; the most taken is {UNPACKED_LIMIT:#x}"
            raise ImageError(message, path, header.payload + header.length - 4, "payload size")
        limit = exact
    try:
        unpacked = unpack(payload, limit, ELF_MAGIC)
    except CompressionError as failure:
        raise ImageError(str(failure), path, header.payload, "payload") from failure
    # Both directions: fewer bytes mean a damaged stream too.
    if exact is not None and len(unpacked) != exact:
        message = f"unpacks to {len(unpacked):#x} bytes where {exact:#x} are declared"
        raise ImageError(message, path, header.payload + header.length - 4, "payload size")
    return unpacked, header
