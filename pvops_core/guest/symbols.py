"""Finding a function of a kernel by name, with an error that helps."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from pvops_core.images import KernelImage


def find_symbol(image: KernelImage, *names: str) -> int:
    """Guest-virtual address of the first of some names that the kernel has.

    Raises:
        UsageError: it has none of them.
        ImageError: its symbols are damaged.
    """
    symbols = image.symbols
    for name in names:
        if name in symbols:
            return symbols[name]
    if not symbols:
        raise UsageError(f"{image.path} has no symbols, so {names[0]!r} cannot be found")
    # Of tens of thousands, those with a beginning in common: close matches among all would take a second.
    alike = [name for name in symbols if name[:4] == names[0][:4]]
    close = difflib.get_close_matches(names[0], alike, n=3)
    guess = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise UsageError(f"{image.path} has no symbol {names[0]!r}{guess}")
