"""C headers: structures laid out for a guest's width from their declarations, as the System V ABIs lay them out.

A header is a file of plain C in the package that needs it. dissect.cstruct reads it when something in it is first asked
for (importing and reading would take every command 20 ms); what is asked for is kept, so nothing is parsed in a run.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from dissect.cstruct import cstruct

_WIDTHS: Final = {32: "__i386__", 64: "__x86_64__"}  # what compilers define for each
_STEP: Final = re.compile(r"(\w+)(?:\[(\d+)\])?")


class Header:
    """A file of C declarations.

    ``__i386__`` or ``__x86_64__`` is defined; ``long``, ``unsigned long`` and pointers have the guest's width. In
    32 bits ``uint64_t`` is aligned to 4 bytes in a structure (System V ABI, Intel386 supplement, "Fundamental Types").

    Args:
        path: the file.
        include: a header that it needs the declarations of; names are one space, as in C.
        packed: nothing in it is aligned.
    """

    def __init__(self, path: Path, include: Header | None = None, *, packed: bool = False) -> None:
        self.path = path
        self._include = include
        self.packed = packed
        self._types: dict[int, cstruct] = {}

    def __getitem__(self, name: str) -> CStruct:
        """A structure by its name; whether the file has it shows when it is first used."""
        return CStruct(self, name)

    def types(self, bits: int) -> cstruct:
        """What the library made of the file, and of those it was read together with."""
        types = self._types.get(bits)
        if types is None:
            types = self._include.types(bits) if self._include else _empty(bits)
            types.load(self.path.read_text(encoding="utf-8"), align=not self.packed, compiled=False)
            self._types[bits] = types
        return types


def _empty(bits: int) -> cstruct:
    """The types that every header has."""
    from dissect.cstruct import cstruct  # noqa: PLC0415 see above

    types = cstruct(f"#define {_WIDTHS[bits]} 1\n", pointer=f"uint{bits}")
    types.add_type("long", f"int{bits}", replace=True)
    types.add_type("unsigned long", f"uint{bits}", replace=True)
    if bits == 32:
        types.resolve("uint64").alignment = types.resolve("int64").alignment = 4
    return types


class MemberPlace(NamedTuple):
    """A field: its offset, and the library's type."""

    offset: int
    type: Any


class Span(NamedTuple):
    """Where in a structure some of its fields are, and their form.

    Attributes:
        offset: of the form's first byte in the structure.
        form: reads and writes the fields; what is between them is skipped, and written as zeros.
    """

    offset: int
    form: struct.Struct


class CStruct:
    """A structure of a header, at either width. A path is a field as C names it: ``arch.cr2``, ``trap_ctxt[3].cs``."""

    def __init__(self, header: Header, name: str) -> None:
        self.header = header
        self.name = name
        self._places: dict[tuple[int, str], MemberPlace] = {}

    def size(self, bits: int) -> int:
        """Its ``sizeof``, in bytes."""
        return len(self.header.types(bits).resolve(self.name))

    def names(self, bits: int) -> tuple[str, ...]:
        """Its fields, in order."""
        return tuple(self.header.types(bits).resolve(self.name).fields)

    def offset(self, path: str, bits: int) -> int:
        """``offsetof`` a field, in bytes.

        Raises:
            AttributeError: the structure has no such field.
        """
        return self.place(path, bits).offset

    def place(self, path: str, bits: int) -> MemberPlace:
        """A field's offset and type."""
        place = self._places.get((bits, path))
        if place is None:
            place = self._places[bits, path] = self._found(path, bits)
        return place

    def _found(self, path: str, bits: int) -> MemberPlace:
        offset, kind = 0, self.header.types(bits).resolve(self.name)
        for name, index in _STEP.findall(path):
            field = getattr(kind, "fields", {}).get(name)
            if field is None:
                raise AttributeError(f"{self.header.path.name}: struct {self.name} has no {path} in {bits} bits")
            offset, kind = offset + (field.offset or 0), field.type  # of a union's there is none
            if index:
                kind = kind.type
                offset += int(index) * len(kind)
        return MemberPlace(offset, kind)

    def whole(self, *paths: str) -> Fields:
        """These fields, read and written as the whole structure."""
        return Fields(self, paths, whole=True)

    def part(self, *paths: str) -> Fields:
        """These fields, and no more of the structure than is between the first and the last."""
        return Fields(self, paths, whole=False)

    def over(self, raw: bytes | bytearray, bits: int) -> StructView:
        """One that lies at the beginning of these bytes."""
        return StructView(self, raw, bits)

    def packed(self, bits: int, values: Mapping[str, int | bytes]) -> bytes:
        """One with these fields set, and zeros elsewhere."""
        record = self.over(bytearray(self.size(bits)), bits)
        for path, value in values.items():
            record[path] = value
        return bytes(record.raw)


class Fields:
    """Numbers, texts and rows of numbers of a structure, in the order of their places."""

    def __init__(self, structure: CStruct, paths: tuple[str, ...], *, whole: bool) -> None:
        self.structure = structure
        self.paths = paths
        self._whole = whole
        self._spans: dict[int, Span] = {}

    def at(self, bits: int) -> Span:
        """Where they are in a guest of this width."""
        span = self._spans.get(bits)
        if span is None:
            span = self._spans[bits] = self._span(bits)
        return span

    def _span(self, bits: int) -> Span:
        places = [self.structure.place(path, bits) for path in self.paths]
        start = end = 0 if self._whole else places[0].offset
        form = "<"
        for path, place in zip(self.paths, places, strict=True):
            if place.offset < end:
                raise ValueError(f"struct {self.structure.name}: {path} does not follow what is named before it")
            form += f"{place.offset - end}x{_letters(place.type, bits)}"
            end = place.offset + len(place.type)
        if self._whole:
            form += f"{self.structure.size(bits) - end}x"
        return Span(start, struct.Struct(form))


class StructView:
    """A structure's fields in bytes, by path; for what is read or filled once, not in a run's paths."""

    def __init__(self, structure: CStruct, raw: bytes | bytearray, bits: int) -> None:
        self.structure = structure
        self.raw = raw
        self.bits = bits

    def __getitem__(self, path: str) -> int:
        """A number, as its type is signed or not."""
        offset, kind = self.structure.place(path, self.bits)
        signed = _letters(kind, self.bits).islower()
        return int.from_bytes(self.raw[offset : offset + len(kind)], "little", signed=signed)

    def __setitem__(self, path: str, value: int | bytes) -> None:
        """As C assigns: what of a number does not fit is cut off. A text leaves what is after it as it is."""
        if not isinstance(self.raw, bytearray):
            raise TypeError("these bytes are only read")
        offset, kind = self.structure.place(path, self.bits)
        size = len(kind)
        data = value if isinstance(value, bytes) else (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        if len(data) > size:
            raise ValueError(f"struct {self.structure.name}: {path} has {size} bytes, and {len(data)} are to go there")
        self.raw[offset : offset + len(data)] = data

    def row(self, path: str) -> tuple[int, ...]:
        """An array of numbers."""
        offset, kind = self.structure.place(path, self.bits)
        return struct.unpack_from(f"<{_letters(kind, self.bits)}", self.raw, offset)


def _letters(kind: Any, bits: int) -> str:  # noqa: ANN401
    """The struct module's letters for a field's type."""
    count: int | None = getattr(kind, "num_entries", None)
    if count is not None:
        return f"{count}s" if kind.type.__name__ == "char" else f"{count}{_letters(kind.type, bits)}"
    letter: str | None = getattr(kind, "packchar", None)
    return letter or ("Q" if bits == 64 else "I")  # pointers
