"""The guest-physical pages that are set aside for payloads, and who has which."""

from __future__ import annotations

import errno

from pvops_core.livepatch.errors import LivepatchError

PAGE_SIZE = 0x1000


class Area:
    """A range of guest-virtual pages that nobody else in the guest uses. Its first page is for the core itself.

    Args:
        base: guest-virtual address of the first page.
        pages: how many there are.
    """

    def __init__(self, base: int, pages: int) -> None:
        self.base = base
        self.pages = pages
        self._taken: dict[int, int] = {0: 1}

    @property
    def landing(self) -> int:
        """Where guest code that was called from outside returns to."""
        return self.base

    @property
    def free(self) -> int:
        """Pages that nobody has."""
        return self.pages - sum(self._taken.values())

    def __contains__(self, address: int) -> bool:
        return self.base <= address < self.base + self.pages * PAGE_SIZE

    def allocate(self, size: int) -> int:
        """Take pages for ``size`` bytes; their address. ENOMEM if no run of free pages is long enough."""
        wanted = max(1, -(-size // PAGE_SIZE))
        start = 0
        for first, count in sorted(self._taken.items()):
            if first - start >= wanted:
                break
            start = first + count
        if start + wanted > self.pages:
            raise LivepatchError(
                f"{wanted} pages are wanted and no such run of the {self.pages} set aside is free", errno=errno.ENOMEM
            )
        self._taken[start] = wanted
        return self.base + start * PAGE_SIZE

    def release(self, address: int) -> None:
        """Give pages back."""
        del self._taken[(address - self.base) // PAGE_SIZE]

    def save(self) -> object:
        """State for a snapshot."""
        return dict(self._taken)

    def load(self, state: object) -> None:
        """Go back to a saved state."""
        assert isinstance(state, dict)
        self._taken = dict(state)
