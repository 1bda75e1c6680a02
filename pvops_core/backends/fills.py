"""How the kernel of a chain of backends fills its table, and what is forced on its CPU: for every verb the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvops_core.backends.backend import Backend
    from pvops_core.patching.fills import KernelFill


def fills_of(links: Sequence[Backend]) -> list[KernelFill]:
    """How a real kernel fills its table, by the innermost base's ``kernel`` first.

    Args:
        links: a backend, its base, its base's base.
    """
    return [link.kernel for link in reversed(links) if link.kernel is not None]


def forces_of(links: Sequence[Backend]) -> frozenset[str]:
    """Names of the CPU features that a chain's backends force on the built-in guest.

    A real kernel's boot code goes by its host, and is not told: there ``KernelFill.features`` counts alone.
    """
    return frozenset[str]().union(*(link.forces for link in links))
