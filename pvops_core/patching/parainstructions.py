"""The call sites that a kernel annotated in ``.parainstructions``, from 2.6.23 to 6.7.

``struct paravirt_patch_site`` (arch/x86/include/asm/paravirt_types.h) is a pointer, a type byte and a length byte, then
a 16-bit clobber word, padded to 8 bytes on i386 and to 16 on x86_64. The assembler aligns before each record, so that
the last one need not have its padding (3.2 to 5.10), nor a word of clobbers where the generation has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.patching.patchdefault import LONGEST_SITE
from pvops_core.patching.records import SiteRecord
from pvops_core.patching.text import executable_sections, holders, overlap

if TYPE_CHECKING:
    from pvops_core.errors import ImageError
    from pvops_core.images import KernelImage

SECTION: Final = ".parainstructions"

SITE_LIMIT: Final = 1 << 17
"""Most sites read; a distribution kernel has some 4,000."""

_NEEDED: Final = 2
"""Bytes of a record behind its pointer without which it is none: type and length."""

_RECORDS: Final = {
    8: np.dtype({"names": ["instr", "type", "len", "clobbers"], "formats": ["<u8", "u1", "u1", "<u2"],
                 "offsets": [0, 8, 9, 10], "itemsize": 16}),
    4: np.dtype({"names": ["instr", "type", "len", "clobbers"], "formats": ["<u4", "u1", "u1", "<u2"],
                 "offsets": [0, 4, 5, 6], "itemsize": 8}),
}  # fmt: skip


def read_parainstructions(image: KernelImage) -> tuple[SiteRecord, ...]:
    """All sites that the section lists, in its order; empty if there is no such section.

    Raises:
        ImageError: a record that is cut off, or whose bytes are not in one executable section, overlap another site's,
            or have a length that no kernel takes.
    """
    data = image.paravirt
    if not data:
        return ()
    record = _RECORDS[image.pointer_size]
    # The last record may lack its padding, but not its type and length.
    if 0 < len(data) % record.itemsize < image.pointer_size + _NEEDED:
        size = f"{len(data):#x} bytes is no multiple of the record's {record.itemsize}"
        raise _error(image, len(data) // record.itemsize, "size", size)
    if len(data) // record.itemsize > SITE_LIMIT:
        raise _error(image, SITE_LIMIT, "size", f"is one too many: at most {SITE_LIMIT} sites are read")
    table = np.frombuffer(data + bytes(-len(data) % record.itemsize), record)
    address, length = table["instr"].astype(np.uint64), table["len"].astype(np.uint64)
    # apply_paravirt BUGs on a longer one, and a site of no bytes calls nothing.
    for bad in np.flatnonzero((length == 0) | (length > LONGEST_SITE)).tolist():
        raise _error(image, bad, "len", f"is {int(length[bad])}; a site has 1 to {LONGEST_SITE} bytes")
    sections = executable_sections(image)
    where = holders(sections, address, length)
    for bad in np.flatnonzero(where < 0).tolist():
        message = f"{int(address[bad]):#x}+{int(length[bad])} is not inside an executable section"
        raise _error(image, bad, "instr", message)
    if (pair := overlap(address, length)) is not None:
        first, second = pair
        message = f"{int(address[second]):#x} overlaps site {first} at {int(address[first]):#x}"
        raise _error(image, second, "instr", message)
    section = image.section(SECTION)
    start = section.offset if section else 0
    return tuple(
        SiteRecord(
            at,
            type_,
            size,
            clobbers,
            sections[place].name,
            f"{SECTION}[{index}]",
            start + index * record.itemsize,
        )
        for index, (at, type_, size, clobbers, place) in enumerate(
            zip(
                address.tolist(),
                table["type"].tolist(),
                table["len"].tolist(),
                table["clobbers"].tolist(),
                where.tolist(),
                strict=True,
            )
        )
    )


def read_loaded(image: KernelImage, data: bytes) -> list[tuple[int, int, int]]:
    """Address, type and length of each site of a module that the kernel of an image has loaded.

    Args:
        image: the kernel.
        data: the records as they are in memory.

    Raises:
        ImageError: they are no whole records, or a length is none that a kernel takes.
    """
    record = _RECORDS[image.pointer_size]
    # A module's records are in guest memory: whatever is there must not be taken for sites unseen.
    if 0 < len(data) % record.itemsize < image.pointer_size + _NEEDED:
        raise image.error(f"of a module: {len(data):#x} bytes are no whole records", field=SECTION)
    table = np.frombuffer(data + bytes(-len(data) % record.itemsize), record)
    if bad := [size for size in table["len"].tolist() if not 0 < size <= LONGEST_SITE]:
        raise image.error(f"of a module: a site has 1 to {LONGEST_SITE} bytes, not {bad[0]}", field=SECTION)
    return list(zip(table["instr"].tolist(), table["type"].tolist(), table["len"].tolist(), strict=True))


def _error(image: KernelImage, index: int, field: str, message: str) -> ImageError:
    section = image.section(SECTION)
    offset = section.offset + index * _RECORDS[image.pointer_size].itemsize if section else None
    return image.error(message, field=f"{SECTION}[{index}].{field}", offset=offset)
