"""Where the guest says that members of its structures are."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvops_core.images import KernelImage


def fields(image: KernelImage, section: str) -> dict[str, tuple[int, int]]:
    """A table of struct fields that the compiler made: name to offset and size; "" is the whole struct."""
    data = image.section_bytes(section)
    assert data is not None
    return {name.rstrip(b"\0").decode(): (offset, size) for name, offset, size in struct.iter_unpack("<16sII", data)}
