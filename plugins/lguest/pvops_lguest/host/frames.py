"""The page frames that belong to the host: top of machine memory, out of the guest's reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_lguest.host.memory import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory

_ZEROES = bytes(PAGE_SIZE)


class FramePool:
    """Hands out zeroed frames, lowest free one first, so that a run repeats exactly."""

    def __init__(self, memory: PhysicalMemory, first: int, count: int) -> None:
        """Own ``count`` frames from frame number ``first`` on."""
        self._memory = memory
        # Backwards, for pop() takes from the end.
        self._free = list(range(first + count - 1, first - 1, -1))

    def take(self) -> int | None:
        """Physical address of a zeroed frame; None when all are taken."""
        if not self._free:
            return None
        pa = self._free.pop() << PAGE_SHIFT
        # Here, not when it comes back: a frame given back may lie unused for the rest of the run.
        self._memory.write(pa, _ZEROES)
        return pa

    def give(self, pa: int) -> None:
        """Take back the frame at ``pa``."""
        self._free.append(pa >> PAGE_SHIFT)

    @property
    def available(self) -> int:
        """Frames not handed out."""
        return len(self._free)

    def save(self) -> tuple[int, ...]:
        """The free frames, for a snapshot."""
        return tuple(self._free)

    def load(self, state: tuple[int, ...]) -> None:
        """Go back to what :meth:`save` gave."""
        self._free = list(state)
