"""Two outputs of one guest shown as one: a line that comes on both is shown once.

A guest may write to Xen's console (``console_io``) and to its ring, which are two places on Xen; many write everything
to both, some the second copy much later. Whichever copy comes first is shown as it comes, the other one is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs

_REMEMBERED: Final = 4096
"""Lines that wait for their second copy, of each output."""
_LONGEST: Final = 1 << 16
"""Bytes of a line that are kept until it ends; Xen keeps 200 (DOMAIN_PBUF_SIZE). A guest may print all its memory."""


LinesState: TypeAlias = tuple[tuple[bytes, int, tuple[bytes, ...]], ...]
"""Of each output the line that is not ended, how much of it has been shown, and the lines it was alone with."""


@attrs.define
class Output:
    """One of the two.

    Attributes:
        line: what has come of the line that is not ended.
        shown: how much of that has been shown.
        alone: whole lines that were shown and have not come on the other output, the oldest first.
    """

    line: bytes = b""
    shown: int = 0
    alone: deque[bytes] = attrs.field(factory=lambda: deque(maxlen=_REMEMBERED))


@attrs.define
class MergedLines:
    """Shows what comes on two outputs.

    Attributes:
        emit: gets the bytes to be shown, in order.
        outputs: the two.
    """

    emit: Callable[[bytes], None]
    outputs: tuple[Output, Output] = attrs.field(factory=lambda: (Output(), Output()))

    def write(self, which: int, data: bytes) -> None:
        """Bytes come on one of them."""
        mine, other = self.outputs[which], self.outputs[1 - which]
        *ended, rest = data.split(b"\n")
        for piece in ended:
            mine.line += piece + b"\n"
            self._end(mine, other)
        mine.line += rest
        # Waiting lines are shown at once when they can be no second copy of what was shown.
        if mine.shown or not _may_become(mine.line, other):
            self._show(mine)
        if len(mine.line) > _LONGEST:
            self._show(mine)
            # One byte says that the line has begun: its end is no second copy.
            mine.line, mine.shown = mine.line[-1:], 1

    def settle(self) -> None:
        """The guest sleeps: what it has begun is a prompt, and no second copy."""
        for each in self.outputs:
            self._show(each)

    def _end(self, mine: Output, other: Output) -> None:
        """A line is whole: the second copy of one that was shown, or a new one."""
        text = _text(mine.line)
        # The second copy, whichever output it came by: it is left out, and may come again.
        if not mine.shown and text in other.alone:
            other.alone.remove(text)
        else:
            self._show(mine)
            mine.alone.append(text)
        mine.line, mine.shown = b"", 0

    def _show(self, mine: Output) -> None:
        if len(mine.line) > mine.shown:
            self.emit(mine.line[mine.shown :])
            mine.shown = len(mine.line)

    def save(self) -> LinesState:
        """State for a snapshot."""
        return tuple((each.line, each.shown, tuple(each.alone)) for each in self.outputs)

    def load(self, saved: LinesState) -> None:
        """Take over what ``save`` gave."""
        for each, (line, shown, alone) in zip(self.outputs, saved, strict=True):
            each.line, each.shown, each.alone = line, shown, deque(alone, maxlen=_REMEMBERED)


def _text(line: bytes) -> bytes:
    """A line without its end, which may differ between the two."""
    return line.rstrip(b"\r\n")


def _may_become(line: bytes, other: Output) -> bool:
    """The beginning of a line may be the second copy of one that was shown, in part or as a whole."""
    start = _text(line)
    return bool(line) and (other.line.startswith(start) or any(text.startswith(start) for text in other.alone))
