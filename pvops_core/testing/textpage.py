"""Room in guest text for a test's own machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import UsageError
from pvops_core.testing.call import ROOM

if TYPE_CHECKING:
    from pvops_core.testing.call import Caller


@attrs.frozen
class TextPage:
    """The padding of the guest's text; the fixture ``text_page``.

    Attributes:
        call: writes there.
    """

    call: Caller

    @property
    def address(self) -> int:
        """Guest-virtual address of the first byte."""
        return self.call.text

    @property
    def size(self) -> int:
        """Bytes that fit."""
        return ROOM - 1

    def run(self, code: bytes) -> None:
        """Run code with the registers as they are, until it comes to its end; they are left as it leaves them.

        Raises:
            UsageError: the code is too long.
            CallError: it did not come to its end.
        """
        if len(code) > self.size:
            raise UsageError(f"{len(code)} bytes of code; there is room for {self.size}")
        self.call.run(code)
