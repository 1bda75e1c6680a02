"""Options whose value may be several numbers, which makes a study of a comparison."""

from __future__ import annotations

from typing import Self

import attrs

from pvops_core.cli.options.runoptions import MOST_MEMORY
from pvops_core.errors import UsageError
from pvops_core.study.values import numbers

MOST_CPUS = 128
_MOST_SEED = (1 << 63) - 1


@attrs.frozen
class NumberedAxes:
    """Numbers of CPUs, seeds and memories, in order; of memories none where none was given."""

    cpus: tuple[int, ...]
    seeds: tuple[int, ...]
    memory: tuple[int, ...]

    @classmethod
    def of(cls, cpus: str, seeds: str, memory: str) -> Self:
        """Those that texts mean, such as ``1,2,4`` or ``0..9``.

        Raises:
            UsageError: a text is no number or range, or a number is out of bounds.
        """
        return cls(
            _numbers("cpus", cpus, 1, MOST_CPUS),
            _numbers("seed", seeds, 0, _MOST_SEED),
            _numbers("memory", memory, 1, MOST_MEMORY) if memory else (),
        )

    @property
    def several(self) -> bool:
        """One of them has several values."""
        return max(map(len, (self.cpus, self.seeds, self.memory))) > 1


def _numbers(option: str, text: str, least: int, most: int) -> tuple[int, ...]:
    try:
        found = numbers(text)
    except UsageError as error:
        raise UsageError(f"--{option}: {error.message}") from error
    for number in found:
        if not least <= number <= most:
            raise UsageError(f"--{option}: {number} is not in the range {least}<=x<={most}")
    return found
