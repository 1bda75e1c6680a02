"""Symbols of a distribution's kernel, kept on disk or read of its image.

What is kept is looked up where it lies: of 80,000 symbols a boot that goes on from a file asks for a hundred, and to
make a dictionary of them all takes 25 ms.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal, overload

import msgspec
import xxhash

from pvops_core.images.symboltable import SymbolTable
from pvops_core.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WORTH: Final = 20_000
"""Symbols from which on they are kept."""
_KEPT: Final = Kept("symbols", ("images/kallsyms", "images/symbols", "images/keptsymbols"), 16)
_LENGTHS: Final = struct.Struct("<8Q")
"""Bytes of each of the columns that follow."""
_FORMS: Final[tuple[Literal["Q", "I", "B"], ...]] = (*("Q",) * 3, *("I",) * 3, *("B",) * 2)
"""Hashes of names, ascending; addresses by name; addresses ascending; which name each hash is of; ends of the names by
name, and of those by address; these names, one behind the other, and those."""


class _Front(msgspec.Struct, array_like=True):
    source: str
    shared: dict[str, tuple[int, ...]]


class _Names(Sequence[str]):
    """Names one behind the other, by number."""

    def __init__(self, text: memoryview, ends: memoryview) -> None:
        self._text, self._ends = text, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        return _text(self._text[self._ends[at - 1] if at else 0 : self._ends[at]])


class _ByName(Mapping[str, int]):
    """Addresses by name: found by its hash, or in a dictionary once all of them are wanted."""

    def __init__(self, hashes: memoryview, numbers: memoryview, names: _Names, addresses: memoryview) -> None:
        self._hashes, self._numbers, self._names, self._addresses = hashes, numbers, names, addresses

    def __getitem__(self, name: str) -> int:
        if "_all" in vars(self):
            return self._all[name]
        at = bisect_left(self._hashes, wanted := _hash(name))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            number = self._numbers[at]
            if self._names[number] == name:
                address: int = self._addresses[number]
                return address
            at += 1
        raise KeyError(name)

    def __len__(self) -> int:
        return len(self._hashes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    @cached_property
    def _all(self) -> dict[str, int]:
        return dict(zip(self._names, self._addresses, strict=True))


def kept_symbols(name: str, read: Callable[[], SymbolTable]) -> SymbolTable:
    """The symbols of an image.

    Args:
        name: the image's hash.
        read: reads them of the image.
    """
    found = _KEPT.map(name)
    table = _table(found[0], memoryview(found[1])) if found else None
    if table is None:
        table = read()
        # Reading a small table is as fast as reading it from disk.
        if len(table.by_name) >= WORTH:
            _keep(name, table)
    return table


def _table(front: bytes, body: memoryview) -> SymbolTable | None:
    """None for what is not ours, though it is whole."""
    try:
        (length,) = struct.unpack_from("<Q", front)
        told = msgspec.msgpack.decode(front[8 : 8 + length], type=_Front)
        ends = list(accumulate(_LENGTHS.unpack_from(body), initial=_LENGTHS.size))
        parts = zip(ends, ends[1:], _FORMS, strict=False)
        columns = [body[start:end].cast("B").cast(form) for start, end, form in parts]
    except (ValueError, TypeError, struct.error):
        return None
    hashes, places, addresses, numbers, ends_by_name, ends_by_address, names, here = columns
    by_name = _ByName(hashes, numbers, _Names(names, ends_by_name), places)
    return SymbolTable(told.source, by_name, told.shared, addresses, _Names(here, ends_by_address))


def _keep(name: str, table: SymbolTable) -> None:
    hashes = sorted((_hash(each), number) for number, each in enumerate(table.by_name))
    columns = (
        struct.pack(f"<{len(hashes)}Q", *(value for value, _number in hashes)),
        *(struct.pack(f"<{len(each)}Q", *each) for each in (table.by_name.values(), table.addresses)),
        struct.pack(f"<{len(hashes)}I", *(number for _value, number in hashes)),
        _ends(table.by_name),
        _ends(table.names),
        b"".join(map(_bytes, table.by_name)),
        b"".join(map(_bytes, table.names)),
    )
    told = msgspec.msgpack.encode(_Front(table.source, dict(table.shared)))
    body = b"".join((_LENGTHS.pack(*map(len, columns)), *columns))
    _KEPT.write(name, struct.pack("<Q", len(told)) + told, body, aligned=True)


def _ends(names: Iterable[str]) -> bytes:
    ends = list(accumulate(len(_bytes(each)) for each in names))
    return struct.pack(f"<{len(ends)}I", *ends)


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(_bytes(name))


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _text(data: memoryview) -> str:
    return str(data, "utf-8", "surrogatepass")
