"""Room for a few instructions in a kernel's text: what fills the gaps between functions.

Nothing ever executes there, and unlike init text it is never given back. Linkers of today fill with int3; eight and
more of them in a row are no part of a function, for compilers write one at a time. Older kernels' gaps are nops, of
which a function has some inside: those are taken that stand between its last instruction, which goes elsewhere, and the
next function.
"""

from __future__ import annotations

import itertools
import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from pvops_core.errors import PatchError
from pvops_core.patching.code.disasm import instruction_lengths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.images import KernelImage

PIECE: Final = 8
"""Bytes of a piece of room."""
MOST: Final = 256
"""Pieces at most: more than there are ops."""
_FILLER: Final = re.compile(rb"\xcc{9,}")
"""int3 between functions, which vmlinux.lds.S fills text with; one more than a piece."""
_NOPS: Final = re.compile(
    # The forms that assemblers align with: 90, lea esi or edi or eax of itself, mov of itself, 0f 1f, behind prefixes.
    rb"(?:[\x66\x2e\x3e]*(?:\x90|\x89[\xf6\xff\xc0]|\x8d[\x76\x7f\x40]\x00|\x8d[\x74\x7c\x44]\x26\x00|\x8d[\xb6\xbf]\0{4}|"
    rb"\x8d[\xb4\xbc][\x26\x27]\0{4}|\x0f\x1f(?:\x00|\x40\0|\x44\0\0|\x80\0{4}|\x84\0{5})))+\Z"
)
_LONGEST_GAP: Final = 64
_LEAVES: Final = frozenset({0xC3, 0xE9, 0xEB})
"""First bytes of a return and of jumps: no instruction behind one is come to from it."""


class SitePadding:
    """The pieces of room in a kernel's text, longest stretches first, each given out once.

    Args:
        image: the kernel.
    """

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        # Gaps of int3 first, which no function can have inside; nops only where there are none.
        self._pieces = tuple(islice(_pieces(image), MOST)) or tuple(islice(_between_functions(image), MOST))
        self._free = list(reversed(self._pieces))  # taken from the end: the longest stretches first

    def take(self) -> int:
        """Guest-virtual address of a piece that nobody has.

        Raises:
            PatchError: none is left.
        """
        if not self._free:
            raise PatchError("the kernel's text has no padding left to put a hook's entry in")
        # From the end: the longest stretches first, so that a short one is the last to be used.
        return self._free.pop()

    def filler(self, address: int) -> bytes:
        """What a piece holds while it is nobody's."""
        return self._image.read(address, PIECE)

    def give_back(self, address: int) -> None:
        """The piece is filler again, and free."""
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


def _between_functions(image: KernelImage) -> Iterator[int]:
    """Pieces of the nops before a function that begins at a symbol, behind one that is left by its last instruction."""
    section, text = image.section(".text"), image.section_bytes(".text")
    if section is None or text is None:
        return
    starts = [at - section.address for at in image.symbol_table.addresses if at in section]
    for start, end in itertools.pairwise(starts):
        gap = _NOPS.search(text, max(start, end - _LONGEST_GAP), end)
        if gap is None or end - gap.start() < PIECE:
            continue
        code, at = text[start:end], 0
        last = 0
        for length in instruction_lengths(code, 8 * image.pointer_size):
            if at >= gap.start() - start:
                break
            last, at = code[at], at + length
        if at == gap.start() - start and last in _LEAVES:
            for place in range(gap.start(), end - PIECE + 1, PIECE):
                yield section.address + place
