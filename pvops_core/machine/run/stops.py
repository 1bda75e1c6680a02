"""Why a run ended."""

from __future__ import annotations

from typing import Final

import attrs

FROM_OUTSIDE: Final = frozenset({"until", "timeout", "ended", "asked"})
"""Reasons to stop that are not the guest's own end: a call of guest code that is under way is finished first."""
ENDS: Final = frozenset({"poweroff", "reboot", "crash", "dead", "halted"})
"""Reasons after which a guest does not go on."""


@attrs.frozen
class Stop:
    """Why a run ended.

    Attributes:
        reason: "poweroff", "reboot", "crash", "timeout", "ended", "asked", "dead" or what a handler gave to ``stop``.
        detail: more of it, for people.
    """

    reason: str
    detail: str = ""
