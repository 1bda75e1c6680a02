"""Work that is broken off when it takes too long: a hook that never comes back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pvops_core.errors import MachineError


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Break off what Python does inside when so much wall time is over; in the main thread, for only that can be.

    Raises:
        MachineError: it is over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise MachineError(f"it has not answered in {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, over)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        ours, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # somebody else's, which has run on
            signal.setitimer(signal.ITIMER_REAL, max(left - (seconds - ours), 1e-6), interval)
