"""The call sites of a guest, by op: what they were built as, what stands there now, what it amounts to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.ops import Layout
    from pvops_core.patching.poke import Poker
    from pvops_core.patching.sites import SiteRecord

BRANCHES = (0xE8, 0xE9)


@attrs.frozen(eq=False)
class SiteGroup:
    """All sites of one op that are equally long and let the same registers be destroyed.

    Attributes:
        type: type number of the op.
        clobbers: what its records allow to be destroyed.
        addresses: guest-virtual addresses, shape ``(n,)``.
        original: bytes as built, shape ``(n, length)``.
        patched: whether a site has been patched, shape ``(n,)``; also where the patcher chose to leave it alone.
    """

    type: int
    clobbers: int
    addresses: NDArray[np.uint64]
    original: NDArray[np.uint8]
    patched: NDArray[np.bool_]

    @property
    def length(self) -> int:
        """Bytes of each site."""
        return int(self.original.shape[1])


class SiteIndex:
    """Every site of a guest.

    Args:
        layout: the guest's layout.
        records: its site records.
        original: bytes as built, given address and length.
    """

    def __init__(self, layout: Layout, records: Iterable[SiteRecord], original: Callable[[int, int], bytes]) -> None:
        groups: dict[tuple[int, int, int], list[int]] = {}
        for record in records:
            # Grouped by what decides the code, so that a batch is one array.
            groups.setdefault((record.type, record.length, record.clobbers), []).append(record.address)
        self._shapes: dict[str, list[SiteGroup]] = {}
        self._places: dict[int, tuple[SiteGroup, int]] = {}
        for (type, length, clobbers), addresses in groups.items():
            code = b"".join(original(address, length) for address in addresses)
            shape = SiteGroup(
                type,
                clobbers,
                np.array(addresses, dtype=np.uint64),
                np.frombuffer(code, dtype=np.uint8).reshape(-1, length),
                np.zeros(len(addresses), dtype=np.bool_),
            )
            self._places.update((address, (shape, row)) for row, address in enumerate(addresses))
            self._shapes.setdefault(layout.by_type(type).op.name, []).append(shape)

    def of(self, op: str) -> Sequence[SiteGroup]:
        """The sites of an op."""
        return self._shapes.get(op, ())

    def mark(self, address: int) -> None:
        """Note that the guest has patched the site at an address, if there is one."""
        if address in self._places:
            shape, row = self._places[address]
            shape.patched[row] = True

    def save(self) -> tuple[bytes, ...]:
        """Which sites are patched, a byte for each, for a snapshot."""
        return tuple(shape.patched.tobytes() for shapes in self._shapes.values() for shape in shapes)

    def load(self, state: tuple[bytes, ...]) -> None:
        """Go back to a saved state."""
        shapes = (shape for shapes in self._shapes.values() for shape in shapes)
        for shape, patched in zip(shapes, state, strict=True):
            shape.patched[:] = np.frombuffer(patched, dtype=np.bool_)

    @property
    def ops(self) -> Sequence[str]:
        """Ops that have sites."""
        return tuple(self._shapes)

    def forms(self, poker: Poker, nops: Callable[[int], bytes]) -> Mapping[str, Counter[str]]:
        """By op, how many of its sites are ``indirect``, ``direct``, ``nop`` or ``inlined`` now."""
        return {op: self._forms_of(shapes, poker, nops) for op, shapes in self._shapes.items()}

    @staticmethod
    def _forms_of(shapes: Iterable[SiteGroup], poker: Poker, nops: Callable[[int], bytes]) -> Counter[str]:
        found: Counter[str] = Counter()
        for shape in shapes:
            for original, now in zip(shape.original, poker.read(shape.addresses, shape.length), strict=True):
                found[site_form(original.tobytes(), now.tobytes(), nops)] += 1
        return found


def site_form(original: bytes, now: bytes, nops: Callable[[int], bytes]) -> str:
    """What has become of a site: ``indirect``, ``direct``, ``nop`` or ``inlined``.

    Args:
        original: its bytes as built.
        now: its bytes now, as many.
        nops: gives the nops that patched sites are padded with.
    """
    if now == original:
        return "indirect"
    if now == nops(len(now)):
        return "nop"
    if now[0] in BRANCHES and now[5:] == nops(len(now) - 5):
        return "direct"
    return "inlined"
