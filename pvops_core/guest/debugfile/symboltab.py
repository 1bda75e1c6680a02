"""``.symtab`` of a kernel's symbols, with the sections, types and sizes that kallsyms does not tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.images.symbols import SYM32, SYM64

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from pvops_core.images.kallsyms import SymbolColumns

_GLOBAL: Final = 1 << 4
_OBJECT, _FUNCTION = 1, 2
_TYPE: Final = 0xF
_ABSOLUTE: Final = 0xFFF1
"""SHN_ABS: the symbol lies in no section."""


@attrs.frozen
class Extent:
    """Where a section is.

    Attributes:
        start: virtual address of its first byte.
        end: that of the first byte behind it.
        executable: it holds instructions.
    """

    start: int
    end: int
    executable: bool


@attrs.frozen
class Symbols:
    """A symbol table.

    Attributes:
        table: its entries, local ones first, without the empty one that a section begins with.
        names: the strings that these name.
    """

    table: NDArray[Any]
    names: bytes = attrs.field(repr=False)

    @property
    def locals(self) -> int:
        """How many are not global."""
        return int(np.count_nonzero(self.table["info"] < _GLOBAL))

    @property
    def functions(self) -> int:
        """How many are functions."""
        return int(np.count_nonzero(self._is_function))

    @property
    def _is_function(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.equal(self.table["info"] & _TYPE, _FUNCTION)
        return found

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each function begins and ends, ascending; one at a place."""
        found = np.unique(self.table[self._is_function][["value", "size"]])
        starts, sizes = found["value"].tolist(), found["size"].tolist()
        return ((start, start + size) for start, size in zip(starts, sizes, strict=True))


def tabulate(columns: SymbolColumns, extents: Sequence[Extent], bits: int) -> Symbols:
    """The table of some symbols.

    A symbol reaches to the next one, or to the end of its section, as the kernel itself reckons
    (kallsyms_lookup_size_offset); in a section of instructions it is a function.

    Args:
        columns: the symbols.
        extents: the sections, in the order in which they are numbered; of several at a place the first counts.
        bits: the file's width.
    """
    places = np.array(columns.addresses, np.uint64)
    held = np.zeros(len(places), np.intp)
    for number, extent in reversed(list(enumerate(extents, 1))):
        held[(places >= np.uint64(extent.start)) & (places < np.uint64(extent.end))] = number
    ends = np.array([0, *(extent.end for extent in extents)], np.uint64)[held]
    executable = np.array([False, *(extent.executable for extent in extents)])[held]
    every = np.append(np.unique(places), np.uint64((1 << 64) - 1))
    following = every[np.searchsorted(every[:-1], places, side="right")]
    encoded = [name.encode() for name in columns.names]
    lengths = [len(name) + 1 for name in encoded]

    table = np.zeros(len(places), SYM64 if bits == 64 else SYM32)
    table["name"] = np.cumsum([1, *lengths])[:-1]
    table["value"] = places
    table["info"] = np.where(columns.exported, _GLOBAL, 0) | np.where(executable, _FUNCTION, _OBJECT)
    table["shndx"] = np.where(held, held, _ABSOLUTE)
    table["size"] = np.where(held, np.minimum(following, ends) - places, 0)
    order = np.argsort(table["info"] >= _GLOBAL, kind="stable")
    return Symbols(table[order], b"\0" + b"\0".join(encoded) + b"\0")
