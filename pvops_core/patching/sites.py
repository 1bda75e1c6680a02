"""The call sites that a kernel annotated in ``.parainstructions``.

``struct paravirt_patch_site`` (arch/x86/include/asm/paravirt_types.h) is a pointer, a type byte and a length byte, then
a 16-bit clobber word, padded to 8 bytes on i386 and to 16 on x86_64.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.patching.default import LONGEST_SITE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.errors import ImageError
    from pvops_core.images import KernelImage, Section

SECTION: Final = ".parainstructions"

SITE_LIMIT: Final = 1 << 17
"""Most sites read; a distribution kernel has some 4,000."""

_RECORDS: Final = {
    8: np.dtype({"names": ["instr", "type", "len", "clobbers"], "formats": ["<u8", "u1", "u1", "<u2"],
                 "offsets": [0, 8, 9, 10], "itemsize": 16}),
    4: np.dtype({"names": ["instr", "type", "len", "clobbers"], "formats": ["<u4", "u1", "u1", "<u2"],
                 "offsets": [0, 4, 5, 6], "itemsize": 8}),
}  # fmt: skip


@attrs.frozen
class SiteRecord:
    """One annotated call.

    Attributes:
        address: virtual address of its first byte.
        type: number of its op: the offset in the table of ops, in pointers.
        length: bytes that may be replaced.
        clobbers: the record's clobber word: registers the replacement may destroy, where the generation has it.
        section: name of the section that holds the site.
    """

    address: int
    type: int
    length: int
    clobbers: int
    section: str


def read_sites(image: KernelImage) -> tuple[SiteRecord, ...]:
    """All sites of an image, in the order of the section; empty if it has no such section.

    Raises:
        ImageError: a record that is cut off, or whose bytes are not in one executable section, overlap another site's,
            or have a length that no kernel takes.
    """
    data = image.paravirt
    if not data:
        return ()
    record = _RECORDS[image.pointer_size]
    if len(data) % record.itemsize:
        size = f"{len(data):#x} bytes is no multiple of the record's {record.itemsize}"
        raise site_error(image, len(data) // record.itemsize, "size", size)
    if len(data) // record.itemsize > SITE_LIMIT:
        raise site_error(image, SITE_LIMIT, "size", f"is one too many: at most {SITE_LIMIT} sites are read")
    table = np.frombuffer(data, record)
    address, length = table["instr"].astype(np.uint64), table["len"].astype(np.uint64)
    for bad in np.flatnonzero((length == 0) | (length > LONGEST_SITE)).tolist():
        raise site_error(image, bad, "len", f"is {int(length[bad])}; a site has 1 to {LONGEST_SITE} bytes")
    sections, where = _holders(image, address, length)
    order = np.argsort(address, kind="stable")
    ends = address[order] + length[order]
    for bad in np.flatnonzero(ends[:-1] > address[order][1:]).tolist():
        first, second = int(order[bad]), int(order[bad + 1])
        message = f"{int(address[second]):#x} overlaps site {first} at {int(address[first]):#x}"
        raise site_error(image, second, "instr", message)
    return tuple(
        SiteRecord(at, type_, size, clobbers, sections[place].name)
        for at, type_, size, clobbers, place in zip(
            address.tolist(),
            table["type"].tolist(),
            table["len"].tolist(),
            table["clobbers"].tolist(),
            where.tolist(),
            strict=True,
        )
    )


def _holders(
    image: KernelImage, address: NDArray[np.uint64], length: NDArray[np.uint64]
) -> tuple[list[Section], NDArray[np.int64]]:
    """The executable sections in address order, and for each site the number of the one that holds all of it."""
    sections = executable_sections(image)
    starts = np.array([section.address for section in sections], np.uint64)
    ends = np.array([section.address + section.size for section in sections], np.uint64)
    where = np.searchsorted(starts, address, side="right") - 1
    inside = where >= 0
    inside[inside] = address[inside] < ends[where[inside]]
    # Compared as what is left, so that an address near 2^64 cannot wrap.
    inside[inside] = ends[where[inside]] - address[inside] >= length[inside]
    for bad in np.flatnonzero(~inside).tolist():
        message = f"{int(address[bad]):#x}+{int(length[bad])} is not inside an executable section"
        raise site_error(image, bad, "instr", message)
    return sections, where


def executable_sections(image: KernelImage) -> list[Section]:
    """The sections whose bytes are instructions, in address order.

    Raises:
        ImageError: two of them overlap in memory or in the file, so that a site could be in either.
    """
    found = [section for section in image.sections if section.executable and section.in_file and section.size]
    for member, place in (("sh_offset", _offset), ("sh_addr", _address)):
        found.sort(key=place)
        for lower, upper in itertools.pairwise(found):
            if place(upper) < place(lower) + lower.size:
                message = f"{upper.name} at {place(upper):#x} overlaps {lower.name}"
                raise image.error(message, field=f"section[{upper.index}] {member}")
    return found


def _offset(section: Section) -> int:
    return section.offset


def _address(section: Section) -> int:
    return section.address


def slot_operand(code: bytes, address: int, pointer_size: int) -> int | None:
    """The table slot that a site calls or jumps through, where its operand is an address and not a register's.

    Args:
        code: the site's bytes, unpatched.
        address: its virtual address.
        pointer_size: 8 for x86_64, where ``ff 15`` and ``ff 25`` count from the next instruction; 4 for i386.
    """
    for at in range(len(code) - 5):
        if code[at] != 0xFF:
            continue
        if code[at + 1] in {0x15, 0x25}:
            operand = int.from_bytes(code[at + 2 : at + 6], "little", signed=True)
            base = address + at + 6 if pointer_size == 8 else 0
            return (base + operand) & ((1 << 8 * pointer_size) - 1)
        if pointer_size == 8 and code[at + 1] in {0x14, 0x24} and code[at + 2] == 0x25 and at + 7 <= len(code):
            operand = int.from_bytes(code[at + 3 : at + 7], "little", signed=True)
            return operand & ((1 << 64) - 1)
    return None


def site_error(image: KernelImage, index: int, field: str, message: str) -> ImageError:
    """An error about one field of one record, ready to raise."""
    section = image.section(SECTION)
    offset = section.offset + index * _RECORDS[image.pointer_size].itemsize if section else None
    return image.error(message, field=f"{SECTION}[{index}].{field}", offset=offset)
