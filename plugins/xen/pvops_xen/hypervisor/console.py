"""The guest's console: bytes by hypercall, and the shared page of the paravirtual console (io/console.h).

On Xen they are two places. Here they are shown as one unless a setting chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from pvops_xen.hypervisor.lines import LinesState, MergedLines
from pvops_xen.hypervisor.ring import BadRingError, ByteRing
from pvops_xen.public import IO

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory

IN: Final = ByteRing(IO["xencons_interface"], "in")
OUT: Final = ByteRing(IO["xencons_interface"], "out")


HYPERCALL, RING = 0, 1
SHOWN: Final = {"once": (), "both": (HYPERCALL, RING), "ring": (RING,), "hypercall": (HYPERCALL,)}
"""What is shown by the setting ``console``: every line once, or all that comes by these ways."""


def _no_log(message: str) -> None:
    del message


class ConsoleState(NamedTuple):
    """A console in a snapshot: its ring's page and event channel, what has been typed, the lines of its outputs."""

    page: int
    port: int
    typed: bytes
    lines: LinesState


@attrs.define
class XenConsole:
    """Takes what the guest prints, and keeps what is typed until the guest takes it.

    Attributes:
        emit: gets the bytes, in order.
        show: a key of SHOWN.
        ring: the guest is to have the shared page.
        page: machine address of the shared page; 0 for none.
        port: event channel of the page; 0 for none.
        typed: what is typed and does not fit into the page yet.
        log: takes what is wrong with the guest's indices.
    """

    emit: Callable[[bytes], None]
    show: str = "once"
    page: int = 0
    port: int = 0
    typed: bytes = b""
    log: Callable[[str], None] = _no_log
    ring: bool = True
    lines: MergedLines = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Show both ways as one."""
        self.lines = MergedLines(self.emit)

    def write(self, data: bytes, way: int = HYPERCALL) -> None:
        """Bytes that the guest prints, by the console hypercall unless said otherwise."""
        # Two copies of a line are one, whichever way they came; a setting shows the ways apart.
        if self.show == "once":
            self.lines.write(way, data)
        elif way in SHOWN[self.show]:
            self.emit(data)

    def read(self, most: int) -> bytes:
        """CONSOLEIO_read: typed bytes for the console hypercall."""
        data, self.typed = self.typed[:most], self.typed[most:]
        return data

    def exchange(self, memory: PhysicalMemory) -> bool:
        """Take what the guest printed, give it what was typed: whether it has to be told of anything."""
        # A domain without a console page (an early guest) has only the hypercall.
        if not self.page:
            return False
        try:
            printed = OUT.take(memory, self.page)
            if printed:
                self.write(printed, RING)
            given = IN.put(memory, self.page, self.typed) if self.typed else 0
        except BadRingError as bad:
            self.log(f"console ring: {bad}")
            return False
        self.typed = self.typed[given:]
        # Told only where something was moved, or the guest and Xen would tell each other for ever.
        return bool(printed or given)

    def save(self) -> ConsoleState:
        """State for a snapshot."""
        return ConsoleState(self.page, self.port, self.typed, self.lines.save())

    def load(self, saved: ConsoleState) -> None:
        """Take over what ``save`` gave."""
        self.page, self.port, self.typed, lines = saved
        self.lines.load(lines)
