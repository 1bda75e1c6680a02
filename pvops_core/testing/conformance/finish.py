"""Runs a guest to its end, and gives up on one that only calls ops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine import Stop

if TYPE_CHECKING:
    from pvops_core.session import Session

STEP: Final = 1_000_000
LIMIT: Final = 400_000_000
"""Virtual time that a boot may take, in ns; a sound one takes a tenth of it to a fifth."""
CALLS: Final = 60_000
"""Calls of ops that it may make; a sound one makes 3,000 to 13,000. They take real time, hardly any virtual time."""


def finish(session: Session) -> Stop:
    """Run until the guest ends; "timeout" if it takes too long, "calls" if it calls too much."""
    for _ in range(LIMIT // STEP):
        stop = session.run(max_ns=STEP)
        if stop.reason != "timeout":
            return stop
        if (made := session.switchboard.calls.total()) > CALLS:
            return Stop("calls", f"{made} calls of ops")
    return Stop("timeout", f"{LIMIT} ns of virtual time have passed")
