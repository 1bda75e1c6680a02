"""C headers: structures laid out for a guest's width from their declarations, as the System V ABIs lay them out.

A header is a file of plain C in the package that needs it. dissect.cstruct reads it when something in it is first asked
for, and what it says is kept on disk by the header's text: importing and reading take 10 ms for each.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from pvops_core.kept import Kept

if TYPE_CHECKING:
    from dissect.cstruct import cstruct

_WIDTHS: Final = {32: "__i386__", 64: "__x86_64__"}  # what compilers define for each
_STEP: Final = re.compile(r"(\w+)(?:\[(\d+)\])?")
_KEPT: Final = Kept("layouts", ("headers",), 64)


class FieldType(msgspec.Struct, array_like=True):
    """A type as it is laid out for one width; its ``len`` is its ``sizeof``.

    Attributes:
        size: bytes.
        letters: the struct module's for it, where it is a number, a text or a row of numbers.
        fields: of a structure or union, by name: offset and type.
        element: of an array.
    """

    size: int
    letters: str = ""
    fields: dict[str, tuple[int, FieldType]] = {}
    element: FieldType | None = None

    def __len__(self) -> int:
        return self.size


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
        self._layouts: dict[int, dict[str, FieldType]] = {}

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

    @property
    def texts(self) -> tuple[tuple[str, bool], ...]:
        """Text of this file and of those that it includes, and whether it is packed."""
        included = () if self._include is None else self._include.texts
        return (self.path.read_text(encoding="utf-8"), self.packed), *included

    def layout(self, name: str, bits: int) -> FieldType:
        """How a structure of this file, or of one that it includes, is laid out.

        Raises:
            KeyError: there is none of that name.
        """
        if bits not in self._layouts:
            self._layouts[bits] = self._kept(bits)
        return self._layouts[bits][name]

    def _kept(self, bits: int) -> dict[str, FieldType]:
        name = hashlib.sha256(repr((bits, self.texts)).encode()).hexdigest()
        found = _KEPT.read(name)
        if found is not None:
            return msgspec.msgpack.decode(found[1], type=dict[str, FieldType])
        types = self.types(bits)
        made = {
            name: _field_type(types.resolve(name), bits)
            for name, kind in types.typedefs.items()
            if isinstance(kind, str) or hasattr(kind, "fields")
        }
        _KEPT.write(name, b"", msgspec.msgpack.encode(made))
        return made


def _empty(bits: int) -> cstruct:
    """The types that every header has."""
    from dissect.cstruct import cstruct  # noqa: PLC0415 see above

    types = cstruct(f"#define {_WIDTHS[bits]} 1\n", pointer=f"uint{bits}")
    types.add_type("long", f"int{bits}", replace=True)
    types.add_type("unsigned long", f"uint{bits}", replace=True)
    if bits == 32:
        types.resolve("uint64").alignment = types.resolve("int64").alignment = 4
    return types


def _field_type(kind: Any, bits: int) -> FieldType:  # noqa: ANN401 - the library's
    if fields := getattr(kind, "fields", None):
        placed = {name: (each.offset or 0, _field_type(each.type, bits)) for name, each in fields.items()}
        return FieldType(len(kind), fields=placed)  # of a union's fields there is no offset
    if (count := getattr(kind, "num_entries", None)) is not None:
        element = _field_type(kind.type, bits)
        letters = f"{count}s" if kind.type.__name__ == "char" else element.letters and f"{count}{element.letters}"
        return FieldType(len(kind), letters, element=element)
    # What has no letter is a pointer.
    return FieldType(len(kind), getattr(kind, "packchar", None) or ("Q" if bits == 64 else "I"))


class MemberPlace(NamedTuple):
    """A field's offset and type."""

    offset: int
    type: FieldType


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
        return self.header.layout(self.name, bits).size

    def names(self, bits: int) -> tuple[str, ...]:
        """Its fields, in order."""
        return tuple(self.header.layout(self.name, bits).fields)

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
        offset, kind = 0, self.header.layout(self.name, bits)
        for name, index in _STEP.findall(path):
            field = kind.fields.get(name)
            inside = field and (field[1].element if index else field[1])
            if field is None or inside is None:
                raise AttributeError(f"{self.header.path.name}: struct {self.name} has no {path} in {bits} bits")
            offset, kind = offset + field[0] + int(index or 0) * inside.size, inside
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
            form += f"{place.offset - end}x{place.type.letters}"
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
        return int.from_bytes(self.raw[offset : offset + len(kind)], "little", signed=kind.letters.islower())

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
        return struct.unpack_from(f"<{kind.letters}", self.raw, offset)
