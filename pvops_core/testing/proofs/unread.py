"""Memory in which two calls may differ, for nobody reads it before it is written anew: found after each by rules."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.backends.proof import Unread
from pvops_core.errors import StructureError
from pvops_core.machine import GuestFault
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    import numpy.typing as npt

    from pvops_core.guest.types.structs import Structures
    from pvops_core.session import Session

Masks = Mapping[int, "npt.NDArray[np.bool_]"]
"""Of pages by machine address: which of their bytes nobody reads."""


def _transactions(structures: Structures, cpu: int) -> Iterator[tuple[int, int]]:
    """``tid`` of each of SLUB's lists of a CPU's own."""
    size, tid = structures.types.pointer_size, structures.offset("struct kmem_cache_cpu", "tid")
    area = structures.struct("unsigned long", structures.image.symbols.get("__per_cpu_offset", 0) + size * cpu)
    for cache in structures.entries("slab_caches", "struct kmem_cache", "list"):
        yield int(cache.cpu_slab) + area + tid & (1 << 8 * size) - 1, size


OF_LINUX: Final = {
    "kmem_cache_cpu.tid": Unread(
        _transactions,
        "counts changes of a list: what a function allocates and frees again leaves nothing else",
        "next_tid, mm/slub.c",
    )
}
"""What is so under every backend."""


class _After:
    """A kernel's memory as a call has left it.

    Args:
        session: the kernel's; it stands where it stood before the call.
        pages: what the call has written, by machine address.
    """

    def __init__(self, session: Session, pages: Mapping[int, bytes]) -> None:
        self._space, self._memory, self._pages = session.space, session.machine.memory, pages

    def read(self, va: int, length: int) -> bytes:
        """Bytes; GuestFault where it has none."""
        found = b""
        while len(found) < length:
            pa = self._space.walk(va + len(found)).pa
            start = pa % PAGE
            data = self._pages.get(pa - start) or self._memory.read(pa - start, PAGE)
            found += data[start : start + length - len(found)]
        return found


class UnreadMemory:
    """Finds it in one session.

    Args:
        session: the session.
        rules: say where it is.
    """

    def __init__(self, session: Session, rules: Mapping[str, Unread]) -> None:
        self._session, self._rules = session, rules

    def masks(self, written: Mapping[int, bytes], among: Collection[int]) -> Masks:
        """Of some pages, after a call that has written pages."""
        found = {page: np.zeros(PAGE, np.bool_) for page in among}
        try:
            structures = self._session.structures.through(_After(self._session, written))
        except StructureError:
            return found  # without type information there is no rule
        for rule in self._rules.values():
            for cpu in range(len(self._session.machine.vcpus)):
                try:
                    for va, length in rule.find(structures, cpu):
                        self._mark(found, va, length)
                except (StructureError, GuestFault):
                    continue  # of another kernel, or not there yet
        return found

    def _mark(self, found: Masks, va: int, length: int) -> None:
        end = va + length
        while va < end:
            pa, size = self._session.space.walk(va).pa, min(end - va, PAGE - va % PAGE)
            if (page := found.get(pa & -PAGE)) is not None:
                page[pa % PAGE : pa % PAGE + size] = True
            va += size
