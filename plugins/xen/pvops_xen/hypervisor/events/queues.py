"""What Xen remembers of a domain that uses the FIFO interface (``struct evtchn_fifo_domain``); plain data."""

from __future__ import annotations

from typing import Final

import attrs

from pvops_xen.hypervisor.abi import PAGE_SHIFT, PAGE_SIZE

WORDS: Final = PAGE_SIZE // 4
"""Event words of 32 bits in a frame."""

Queue = tuple[int, int]
"""A vCPU and a priority."""


@attrs.define
class Fifo:
    """A domain that uses this interface.

    Attributes:
        control: machine address of each vCPU's control block.
        array: machine frames of the event words.
        tails: last port of each queue; it is linked as long as the queue is not empty.
        last: queue that each port was linked into last.
        priorities: of ports that do not have the default.
        early: ports that had an event when they had no word yet.
    """

    control: dict[int, int] = attrs.field(factory=dict)
    array: list[int] = attrs.field(factory=list)
    tails: dict[Queue, int] = attrs.field(factory=dict)
    last: dict[int, Queue] = attrs.field(factory=dict)
    priorities: dict[int, int] = attrs.field(factory=dict)
    early: set[int] = attrs.field(factory=set)

    def word(self, port: int) -> int | None:
        """Machine address of a port's word."""
        # A frame has 1024 words, one for each port.
        page, slot = divmod(port, WORDS)
        return (self.array[page] << PAGE_SHIFT) + 4 * slot if page < len(self.array) else None
