"""What a kernel file says of itself before it is unpacked (boot.rst, xloadflags)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.images.bzimage import VERSION, is_bzimage
from pvops_core.images.reading import read_file

if TYPE_CHECKING:
    from pathlib import Path

_XLOADFLAGS: Final = 0x236
_KERNEL_64: Final = 1
_XLOADFLAGS_PROTOCOL: Final = 0x20C
"""First boot protocol with the field (Linux 3.8)."""


def machine_of(path: Path) -> str:
    """The kernel's machine, "x86_64" or "i386": from a 64-bit boot header, else from the unpacked kernel.

    Raises:
        ImageError: the file cannot be read or is no kernel.
    """
    data = read_file(path, str(path))
    told = is_bzimage(data) and int.from_bytes(data[VERSION : VERSION + 2], "little") >= _XLOADFLAGS_PROTOCOL
    # XLF_KERNEL_64.
    if told and data[_XLOADFLAGS : _XLOADFLAGS + 1] and data[_XLOADFLAGS] & _KERNEL_64:
        return "x86_64"
    from pvops_core.images.load import load_image  # noqa: PLC0415 - heavy, and seldom needed

    return load_image(data, str(path)).machine
