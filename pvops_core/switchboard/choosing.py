"""Which ops are meant by ``mmu.write_cr3`` and ``irq.*``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from pvops_core.ops import Layout, Slot


def chosen(layout: Layout, patterns: Sequence[str], together: Iterable[frozenset[str]] = ()) -> tuple[Slot, ...]:
    """The slots whose hook names or paths match one of the patterns, in the table's order; all without patterns.

    Args:
        layout: the table.
        patterns: of shells: ``*``, ``?``, ``[…]``.
        together: groups of which either all or none are meant.

    Raises:
        UsageError: a pattern matches none.
    """
    if not patterns:
        return layout.slots
    meant: set[str] = set()
    for pattern in patterns:
        found = {each.op.name for each in layout.slots if fnmatchcase(each.path, pattern) or _named(each, pattern)}
        if not found and any(letter in pattern for letter in "*?["):
            groups = sorted({f"{each.op.group}.*" for each in layout.slots if not each.op.is_data})
            raise UsageError(f"no op of layout {layout.name} is called {pattern!r}; there are {', '.join(groups)}")
        # What no wildcard is in can be misspelt, and then has its own error.
        meant |= found or {(layout.by_path(pattern) if "." in pattern else layout.by_op(pattern)).op.name}
    for group in together:
        if not meant.isdisjoint(group):
            meant |= group
    return tuple(slot for slot in layout.slots if slot.op.name in meant)


def _named(slot: Slot, pattern: str) -> bool:
    return fnmatchcase(slot.op.name, pattern) or fnmatchcase(f"{slot.op.group}.{slot.op.name}", pattern)
