"""What a plan will take, told before it runs: by runs that are kept, else by what such runs usually take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from pvops_core.study.plan import Planned
    from pvops_core.study.rows import Measured
    from pvops_core.study.store import PlannedRow

_BUILTIN_S: Final = 0.4
_KERNEL_S: Final = 20.0
"""Seconds of a run on one CPU of 2020 or so: `docs/explanation/speed.md`."""
_START_S: Final = 0.15
"""Seconds that a run takes beside its guest's, in a worker that stays."""
_WORKER: Final = 250 << 20
"""Bytes of a worker beside its guest's memory."""


@attrs.frozen
class Estimate:
    """What a plan will take.

    Attributes:
        seconds: of wall time.
        memory: bytes, all workers together.
        measured: all of it is judged by runs like these that are kept.
    """

    seconds: float
    memory: int
    measured: bool


def estimate(
    cells: Sequence[Planned], jobs: int, planned: Sequence[PlannedRow] = (), kept: Mapping[str, Measured] | None = None
) -> Estimate:
    """The estimate for cells that are to be run.

    Args:
        cells: those that are not there.
        jobs: runs at once.
        planned: cells of the folder's plan.
        kept: key -> run of the folder.
    """
    times: dict[tuple[str, str], list[float]] = {}
    for row in planned:
        if kept and row.key in kept and kept[row.key].event_log_sha256:
            times.setdefault((row.axes.guest, row.axes.backend), []).append(kept[row.key].wall_s)
    medians = {place: statistics.median(found) for place, found in times.items()}
    places = [(each.axes.guest, each.axes.backend) for each in cells]
    guesses = [medians.get(place, _BUILTIN_S if place[0] == "builtin" else _KERNEL_S) + _START_S for place in places]
    # At worst the largest guests run at one time.
    largest = sorted((each.request.cell.memory for each in cells), reverse=True)[:jobs]
    # No plan ends before its longest run.
    seconds = max(sum(guesses) / max(1, jobs), max(guesses, default=0.0))
    return Estimate(seconds, sum(largest) + _WORKER * len(largest), all(place in medians for place in places))
