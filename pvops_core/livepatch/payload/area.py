"""The guest-virtual pages that are set aside for payloads, who has which, and what each may be used for."""

from __future__ import annotations

import enum
import errno
from typing import TYPE_CHECKING, Protocol

from pvops_core.livepatch.errors import LivepatchError
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.machine import Vcpu


class PageRights(enum.Enum):
    """What pages of a payload are for."""

    TEXT = "rx"
    DATA = "rw"
    RODATA = "ro"


class Pages(Protocol):
    """How the pages set aside come into the guest's address spaces, with which rights (secure_payload())."""

    def prepare(self) -> None:
        """See to it that the pages can be given rights from now on.

        Raises:
            LivepatchError: EAGAIN, the guest has not come so far yet; EBUSY, it uses the addresses itself.
        """

    def protect(self, address: int, size: int, access: PageRights | None) -> None:
        """Give the pages of a range what an access needs and no more; None: they are not there."""

    def fault(self, vcpu: Vcpu, address: int) -> bool:
        """A vCPU met a page fault in the area. True: the page was missing in its address space, and is there now."""


class MappedByGuest:
    """The guest has mapped all of them itself, to be read, written and executed, and they stay as they are."""

    def prepare(self) -> None:
        """Nothing is to be done."""

    def protect(self, address: int, size: int, access: PageRights | None) -> None:
        """They stay as the guest has mapped them."""

    def fault(self, vcpu: Vcpu, address: int) -> bool:  # noqa: ARG002 - as Pages has it
        """What faults is the guest's to answer."""
        return False


class PayloadArea:
    """A range of guest-virtual pages that nobody else in the guest uses. Its first page is for the core itself.

    Args:
        base: guest-virtual address of the first page.
        pages: how many there are.
    """

    def __init__(self, base: int, pages: int) -> None:
        self.base = base
        self.pages = pages
        # By first page: how many. The first one is for the core.
        self._taken: dict[int, int] = {0: 1}

    @property
    def landing(self) -> int:
        """Where guest code that was called from outside returns to."""
        return self.base

    @property
    def free(self) -> int:
        """Pages that nobody has."""
        return self.pages - sum(self._taken.values())

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.base <= address < self.base + self.pages * PAGE

    def allocate(self, size: int) -> int:
        """Take pages for ``size`` bytes, as vmalloc_xen() does; ENOMEM if no run of free pages is long enough."""
        # At least a page: an empty region must have an address of its own.
        wanted = max(1, -(-size // PAGE))
        start = 0
        # First fit, lowest first: runs repeat.
        for first, count in sorted(self._taken.items()):
            if first - start >= wanted:
                break
            start = first + count
        if start + wanted > self.pages:
            raise LivepatchError(
                f"{wanted} pages are wanted and no such run of the {self.pages} set aside is free", errno=errno.ENOMEM
            )
        self._taken[start] = wanted
        return self.base + start * PAGE

    def release(self, address: int) -> None:
        """Give pages back."""
        del self._taken[(address - self.base) // PAGE]

    def save(self) -> dict[int, int]:
        """State for a snapshot."""
        return dict(self._taken)

    def load(self, state: Mapping[int, int]) -> None:
        """Go back to a saved state."""
        self._taken = dict(state)
