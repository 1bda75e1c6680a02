"""Room in guest text for a test's own machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import UsageError
from pvops_core.testing.call import LIMIT, ROOM, CallError, Watch
from pvops_core.testing.landing import UD2

if TYPE_CHECKING:
    from pvops_core.testing.call import Caller


@attrs.frozen
class TextPage:
    """The padding of the guest's text, the same that calls use; the fixture ``text_page``.

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
        return ROOM - len(UD2)

    def run(self, code: bytes) -> None:
        """Run code with the registers as they are, until it comes to its end; they are left as it leaves them.

        Raises:
            UsageError: the code is too long.
            CallError: it did not come to its end.
        """
        if len(code) > self.size:
            raise UsageError(f"{len(code)} bytes of code; there is room for {self.size}")
        call = self.call
        call.write(code + UD2)
        call.cpu.rip = self.address
        with Watch(call.session, self.address + len(code)) as landing:
            stop = call.session.run(max_ns=LIMIT)
        if not landing.reached:
            faults = tuple(landing.faults)
            raise CallError(f"the code did not come to its end: {stop.reason} {stop.detail}", stop, faults)
