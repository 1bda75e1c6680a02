"""Symbols of a distribution's kernel, kept on disk or read of its image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from pvops_core.images.symboltable import SymbolTable
from pvops_core.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Callable

WORTH: Final = 20_000
"""Symbols from which on they are kept."""
_KEPT: Final = Kept("symbols", ("images/kallsyms", "images/symbols"), 16)


class _KeptTable(msgspec.Struct, array_like=True):
    """A table as it is kept; names hold no line ends."""

    source: str
    names: str
    addresses: list[int]
    here: str
    places: list[int]
    shared: dict[str, tuple[int, ...]]


def kept_symbols(name: str, read: Callable[[], SymbolTable]) -> SymbolTable:
    """The symbols of an image.

    Args:
        name: the image's hash.
        read: reads them of the image.
    """
    found = _KEPT.read(name)
    table = _table(found[1]) if found else None
    if table is None:
        table = read()
        # Reading a small table is as fast as reading it from disk.
        if len(table.by_name) >= WORTH:
            _keep(name, table)
    return table


def _table(data: bytes) -> SymbolTable | None:
    try:
        kept = msgspec.msgpack.decode(data, type=_KeptTable)
        # strict: a file with fewer addresses than names is not ours.
        by_name = dict(zip(kept.names.split("\n"), kept.addresses, strict=True))
    except ValueError:
        return None
    return SymbolTable(kept.source, by_name, kept.shared, kept.places, kept.here.split("\n"))


def _keep(name: str, table: SymbolTable) -> None:
    names, here = "\n".join(table.by_name), "\n".join(table.names)
    # Names with line ends could not be told apart again.
    if names.count("\n") != len(table.by_name) - 1 or here.count("\n") != len(table.names) - 1:
        return  # no kernel's
    places = list(table.by_name.values())
    kept = _KeptTable(table.source, names, places, here, table.addresses, table.shared)
    _KEPT.write(name, b"", msgspec.msgpack.encode(kept))
