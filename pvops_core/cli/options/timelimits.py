"""How long the parts of a command may take, so that the whole of it keeps ``--max-seconds``."""

from __future__ import annotations

from typing import Final, Self

import attrs

from pvops_core.cli.options import stopwatch

GRACE: Final = 1.08
"""A worker keeps the limit itself, to say where the guest was; one that does not is ended this much later."""
ENDING: Final = 0.4
"""Collecting what was observed and telling it takes so much of what starting up took, on a machine however busy."""


@attrs.frozen
class TimeLimits:
    """Seconds from the start of a worker.

    Attributes:
        guest: after which the worker ends the run.
        worker: after which it is ended itself.
    """

    guest: float
    worker: float

    @classmethod
    def of_command(cls, max_seconds: float) -> Self:
        """For the one worker of a command that is to be over ``max_seconds`` after its start."""
        spent = (1 + ENDING) * stopwatch.elapsed()
        return cls(max(0.0, max_seconds - spent), max(0.0, GRACE * max_seconds - spent))

    @classmethod
    def of_run(cls, max_seconds: float) -> Self:
        """For each of several workers, which may have to wait for each other."""
        return cls(max_seconds, GRACE * max_seconds)
