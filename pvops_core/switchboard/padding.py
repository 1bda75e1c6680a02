"""Room for a few instructions in a kernel's text: the int3 with which linkers fill what lies between functions.

Nothing ever executes there, and unlike init text it is never given back. Eight and more int3 in a row are no part of a
function: compilers write one at a time.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from pvops_core.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.images import KernelImage

PIECE: Final = 8
"""Bytes of a piece of room."""
MOST: Final = 256
"""Pieces at most: more than there are ops."""
_FILLER: Final = re.compile(rb"\xcc{9,}")


class Padding:
    """The pieces of room in a kernel's text, longest stretches first, each given out once.

    Args:
        image: the kernel.
    """

    def __init__(self, image: KernelImage) -> None:
        self._pieces = tuple(islice(_pieces(image), MOST))
        self._free = list(reversed(self._pieces))

    def take(self) -> int:
        """Guest-virtual address of a piece that nobody has.

        Raises:
            PatchError: none is left.
        """
        if not self._free:
            raise PatchError("the kernel's text has no padding left to put a hook's entrance in")
        return self._free.pop()

    def give_back(self, address: int) -> None:
        """The piece is int3 again, and free."""
        self._free.append(address)

    def save(self) -> tuple[int, ...]:
        """State for a snapshot."""
        return tuple(self._free)

    def load(self, state: tuple[int, ...]) -> None:
        """Go back to a saved state."""
        self._free = list(state)


def _pieces(image: KernelImage) -> Iterator[int]:
    section, text = image.section(".text"), image.section_bytes(".text")
    if section is None or text is None:
        return
    stretches = sorted((match.span() for match in _FILLER.finditer(text)), key=lambda span: (span[0] - span[1], span))
    for start, end in stretches:
        # The first int3 may stop speculation after a return, and is left to do that.
        for place in range(start + 1, end - PIECE + 1, PIECE):
            yield section.address + place
