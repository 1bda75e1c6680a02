"""The records of ``.altinstructions``: code that the kernel replaces at boot by what its CPU has, or has not.

``struct alt_instr`` changed its shape over the years without saying so anywhere in an image; which shape a section has
is decided by which of them makes every record speak of real text. Sources: arch/x86/include/asm/alternative.h of
2.6.23, 2.6.38, 3.3 (self-relative offsets), 4.0 (padlen), 5.13 (padlen gone, inverted feature), 6.3 (flags of their
own) and 6.8 (calls of ops).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.patching.text import executable_sections, holders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.errors import ImageError
    from pvops_core.images import KernelImage, Section

SECTION: Final = ".altinstructions"
INVERTED: Final = 0x8000
"""ALTINSTR_FLAG_INV in the feature word of 5.13 to 6.2: patch if the CPU has *not* got the feature."""
FLAG_NOT: Final = 0x1
"""ALT_FLAG_NOT in the flags of 6.3 and later, with the same meaning."""
FLAG_DIRECT_CALL: Final = 0x2
"""ALT_FLAG_DIRECT_CALL (6.8): the replacement is a call of what the replaced call's slot holds."""
FEATURE_LIMIT: Final = 64 * 32
"""More feature bits than any kernel has words for: (NCAPINTS + NBUGINTS) * 32 is 736 in 6.1."""

ENTRY_LIMIT: Final = 1 << 18
"""Most entries read; a distribution kernel has some 10,000."""


@attrs.frozen
class AltEntry:
    """One record of ``.altinstructions``.

    Attributes:
        address: virtual address of the code that may be replaced.
        length: its bytes.
        replacement: virtual address of the code to put there.
        replacement_length: its bytes; the rest of the place becomes nops.
        feature: number of the CPU feature that decides.
        inverted: replace if the CPU has not got the feature.
        direct: the place is a call of an op, and its replacement one of what the op's slot holds.
        index: number of the record.
        offset: where that is in the unpacked image; None where that is not known.
    """

    address: int
    length: int
    replacement: int
    replacement_length: int
    feature: int
    inverted: bool
    direct: bool = False
    index: int = attrs.field(default=0, eq=False, repr=False)
    offset: int | None = attrs.field(default=None, eq=False, repr=False)

    def applies(self, features: frozenset[int]) -> bool:
        """Whether a CPU with these features gets the replacement."""
        return (self.feature in features) != self.inverted

    def error(self, image: KernelImage, field: str, message: str) -> ImageError:
        """An error about one field of the record, ready to raise."""
        return image.error(message, field=f"{SECTION}[{self.index}].{field}", offset=self.offset)


@attrs.frozen
class _Shape:
    """One way the record has been laid out.

    Attributes:
        record: its fields instr, repl, feature, len, rlen and, where it has them, flags.
        relative: the two places are distances from the field itself, not addresses.
        pointer_size: of the kernels that have it; 0 for both.
    """

    record: np.dtype[np.void]
    relative: bool
    pointer_size: int

    def records(self, data: bytes) -> bytes | None:
        """A section's bytes as whole records of this shape; None if they are not.

        Where records hold addresses they are aligned, and a linker need not have put padding behind the last.
        """
        size = self.record.itemsize
        padding = 0 if self.relative else self.record["rest"].itemsize
        return data.ljust(-(-len(data) // size) * size, b"\0") if -len(data) % size <= padding else None


def _shape(formats: str, size: int, *, relative: bool, pointer_size: int = 0) -> _Shape:
    """A shape from its fields, ``name:format`` each and without gaps, and the record's whole size."""
    fields = [field.split(":") for field in formats.split()]
    # Without gaps: the widest fields come first in every age.
    packed = np.dtype([(name, form) for name, form in fields])
    # Bytes that no field names (padlen, padding) lie at the end.
    record = np.dtype([*((name, form) for name, form in fields), ("rest", f"V{size - packed.itemsize}")])
    return _Shape(record, relative, pointer_size)


_SHAPES: Final = (
    _shape("instr:<i4 repl:<i4 feature:<u2 len:u1 rlen:u1", 12, relative=True),  # 3.3 to 3.19, 5.13 to 6.2
    _shape("instr:<i4 repl:<i4 feature:<u2 flags:<u2 len:u1 rlen:u1", 14, relative=True),  # 6.3 and later
    _shape("instr:<i4 repl:<i4 feature:<u2 len:u1 rlen:u1", 13, relative=True),  # 4.0 to 5.12, with padlen
    # 2.6.23
    _shape("instr:<u4 repl:<u4 feature:u1 len:u1 rlen:u1", 12, relative=False, pointer_size=4),
    _shape("instr:<u4 repl:<u4 feature:<u2 len:u1 rlen:u1", 12, relative=False, pointer_size=4),  # 2.6.38
    _shape("instr:<u8 repl:<u8 feature:u1 len:u1 rlen:u1", 24, relative=False, pointer_size=8),  # 2.6.23
    _shape("instr:<u8 repl:<u8 feature:<u2 len:u1 rlen:u1", 24, relative=False, pointer_size=8),  # 2.6.38
)


@attrs.frozen(eq=False)
class _Columns:
    """A section read in one shape: addresses as unsigned 64-bit numbers, and which records make sense."""

    table: NDArray[np.void]
    instr: NDArray[np.uint64]
    repl: NDArray[np.uint64]
    valid: NDArray[np.bool_]


def read_alternatives(image: KernelImage) -> tuple[AltEntry, ...]:
    """All entries of an image, in the order of the section; empty if it has none.

    Raises:
        ImageError: in none of the known shapes does every record speak of text that is there.
    """
    section = image.section(SECTION)
    if not image.altinstructions or section is None:
        return ()
    shape, best = _best(image, image.altinstructions, section)
    # The best shape may still have a bad record, which a kernel would patch anyway: that image is refused.
    if not best.valid.all():
        bad = int(np.flatnonzero(~best.valid)[0])
        message = (
            f"{int(best.table['len'][bad])} bytes at {int(best.instr[bad]):#x} by {int(best.table['rlen'][bad])} at "
        )
        message += f"{int(best.repl[bad]):#x} are not text"
        offset = section.offset + bad * shape.record.itemsize
        raise image.error(message, field=f"{SECTION}[{bad}]", offset=offset)
    return _entries(best, section.offset, shape.record.itemsize)


def read_loaded(image: KernelImage, data: bytes, address: int) -> tuple[AltEntry, ...]:
    """The entries of a module that the kernel of an image has loaded, whose shape is the kernel's own.

    Args:
        image: the kernel.
        data: the records as they are in memory.
        address: where they are.

    Raises:
        ImageError: they are no whole records, or the kernel has none.
    """
    section = image.section(SECTION)
    if not image.altinstructions or section is None:
        raise image.error("is not there: of what shape a module's is, is not known", field=SECTION)
    shape, _ = _best(image, image.altinstructions, section)
    whole = shape.records(data)
    if whole is None:
        raise image.error(f"of a module: {len(data):#x} bytes are no whole records", field=SECTION)
    return _entries(_read(image, [], whole, shape, address), 0, shape.record.itemsize)


def _best(image: KernelImage, data: bytes, section: Section) -> tuple[_Shape, _Columns]:
    """A section in the shape in which most of its records make sense."""
    # Twelve bytes are the smallest record, so that no shape has more entries.
    if len(data) > ENTRY_LIMIT * 12:
        message = f"{len(data):#x} bytes: at most {ENTRY_LIMIT} entries are read"
        raise image.error(message, field=SECTION, offset=section.offset)
    text = executable_sections(image)
    read = [
        (shape, _read(image, text, whole, shape, section.address))
        for shape in _SHAPES
        if shape.pointer_size in {0, image.pointer_size} and (whole := shape.records(data)) is not None
    ]
    if not read:
        raise image.error(f"{len(data):#x} bytes is no multiple of any record", field=SECTION, offset=section.offset)
    # Wrong shapes make nearly every record point at nothing; the right one has at most a few bad ones.
    return max(read, key=lambda pair: float(np.mean(pair[1].valid)))


def _read(image: KernelImage, text: list[Section], data: bytes, shape: _Shape, base: int) -> _Columns:
    table = np.frombuffer(data, shape.record)
    instr, repl = (table[name].astype(np.uint64) for name in ("instr", "repl"))
    if shape.relative:
        # int64 to uint64 and the sums wrap as addresses do; the mask is for 32-bit kernels.
        mask = np.uint64((1 << 8 * image.pointer_size) - 1)
        place = np.uint64(base) + np.arange(len(table), dtype=np.uint64) * np.uint64(shape.record.itemsize)
        instr = (table["instr"].astype(np.int64).astype(np.uint64) + place) & mask
        # The distance is counted from the second word, four bytes on.
        repl = (table["repl"].astype(np.int64).astype(np.uint64) + place + np.uint64(4)) & mask
    feature = table["feature"] & ~np.uint16(INVERTED)
    valid = (
        (table["len"] > 0)
        & (table["rlen"] <= table["len"])
        & (feature < FEATURE_LIMIT)
        & _in_text(text, instr, table["len"])
        & ((table["rlen"] == 0) | _in_text(text, repl, table["rlen"]))
    )
    return _Columns(table, instr, repl, valid)


def _in_text(text: list[Section], address: NDArray[np.uint64], length: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return holders(text, address, length.astype(np.uint64)) >= 0


def _entries(columns: _Columns, offset: int, size: int) -> tuple[AltEntry, ...]:
    # Before 5.13 the bit is no flag, but no kernel of those days had so many features.
    table = columns.table
    feature = table["feature"].astype(np.uint16)
    has_flags = "flags" in (table.dtype.names or ())
    flags = table["flags"] if has_flags else (feature & INVERTED != 0).astype(np.uint16) * np.uint16(FLAG_NOT)
    return tuple(
        AltEntry(at, length, code, size_, number, bool(flag & FLAG_NOT), bool(flag & FLAG_DIRECT_CALL), index, place)
        for index, (at, length, code, size_, number, flag, place) in enumerate(
            zip(
                columns.instr.tolist(),
                table["len"].tolist(),
                columns.repl.tolist(),
                table["rlen"].tolist(),
                (feature & ~np.uint16(INVERTED)).tolist(),
                flags.tolist(),
                range(offset, offset + len(table) * size, size),
                strict=True,
            )
        )
    )
