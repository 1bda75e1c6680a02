"""What the worker of a run may take, in every verb alike: time to start, time for its guest, memory."""

from __future__ import annotations

import math
import os
from typing import Final

from pvops_core.child.limits import Limits
from pvops_core.errors import UsageError

START: Final = "PVOPS_START_TIMEOUT"
"""Environment variable: seconds of wall time that a run may take to come to its guest's first instruction."""
_ROOM: Final = 3 << 30
"""Bytes that a worker may take beside the guest's memory."""

_LONG_SESSION: Final = 1 << 30
"""Bytes of console text that come of a day at a terminal, and more."""


def worker_limits(max_seconds: float | None, memory: int) -> Limits:
    """The limits of a run.

    Args:
        max_seconds: the guest's wall time; None for a run that somebody sits at, who ends it when he likes.
        memory: the guest's memory in bytes.

    Raises:
        UsageError: the limit of the environment is no number of seconds.
    """
    text = os.environ.get(START, "")
    try:
        start_s = float(text) if text else Limits().start_s
    except ValueError:
        start_s = math.nan
    if not 0 < start_s < math.inf:
        raise UsageError(f"{START}: {text!r} is not a number of seconds")
    if max_seconds is None:
        return Limits(start_s=start_s, wall_s=math.inf, memory=_ROOM + memory, output=_LONG_SESSION)
    return Limits(start_s=start_s, wall_s=max_seconds, memory=_ROOM + memory)
