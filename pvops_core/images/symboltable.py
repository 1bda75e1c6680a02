"""Symbols by name and by address."""

from __future__ import annotations

import attrs


@attrs.frozen(eq=False)
class SymbolTable:
    """Symbols by name and by address.

    Attributes:
        source: ``".symtab"``, ``"kallsyms"`` or ``""`` where the image has neither.
        by_name: name to virtual address; of several with one name a global one wins, then the first.
        shared: names that several addresses have, to these, ascending.
        addresses: ascending; no address twice.
        names: of the first symbol at each of ``addresses``, in the table's own order.
    """

    source: str
    by_name: dict[str, int] = attrs.field(repr=False)
    shared: dict[str, tuple[int, ...]] = attrs.field(repr=False)
    addresses: list[int] = attrs.field(repr=False)
    names: list[str] = attrs.field(repr=False)
