"""A study on a cluster whose processes are killed while it runs: each cell once, none lost, none different."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from soak.tally import Tally

CELLS: Final = 40
KILLS: Final = 10


def play(seed: int) -> Tally:
    """A small study; `python -m soak study` attacks a large one."""
    if find_spec("distributed") is None:
        return Tally(skipped="distributed is not installed (pvops-core[cluster])")
    from soak.killing.campaign import attack  # noqa: PLC0415 - needs what comes with that

    return attack(seed, CELLS, KILLS)
