"""What tests of single ops share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .ops_rig import OpsHost


SCRATCH = 0x140000


def told(guest: OpsHost, act: Callable[[], object]) -> list[tuple[object, ...]]:
    """The hypercalls that an act makes."""
    before = len(guest.calls())
    act()
    return guest.calls()[before:]
