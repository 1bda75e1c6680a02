"""Laws: what must be true of ops on every backend, each a function that calls them and looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from pvops_core.ops import Layout
    from pvops_core.testing.conformance.fixture import Fixture

Check = Callable[["Fixture", str], None]


@attrs.frozen
class Law:
    """A law.

    Attributes:
        name: what it is called.
        ops: the ops that it says something about, each tried on its own.
        needs: capabilities without which it does not hold.
        also: other ops that a layout must have for it.
        point: where in the guest's boot it is tried.
        vcpus: on how many vCPUs.
        check: raises AssertionError if the law is broken; given the op.
    """

    name: str
    ops: tuple[str, ...]
    needs: frozenset[str]
    also: tuple[str, ...]
    point: str
    vcpus: int
    check: Check

    def applies(self, op: str, layout: Layout) -> bool:
        """Whether a layout has what the law speaks of."""
        return op in layout and all(other in layout for other in self.also)


LAWS: Final[list[Law]] = []


def law(
    *ops: str, needs: tuple[str, ...] = (), also: tuple[str, ...] = (), point: str = "patched", vcpus: int = 1
) -> Callable[[Check], Check]:
    """Make a function a law of these ops."""

    def register(check: Check) -> Check:
        LAWS.append(Law(check.__name__, ops, frozenset(needs), also, point, vcpus, check))
        return check

    return register
