"""Symbols by name and by address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
    by_name: Mapping[str, int] = attrs.field(repr=False)
    shared: Mapping[str, tuple[int, ...]] = attrs.field(repr=False)
    addresses: Sequence[int] = attrs.field(repr=False)
    names: Sequence[str] = attrs.field(repr=False)
