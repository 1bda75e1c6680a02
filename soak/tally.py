"""What an attacker did in a round."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import attrs


@attrs.define
class Tally:
    """Counted things, and those among them that were wrong.

    Attributes:
        count: how many.
        wrong: a sentence each.
        notes: what else was counted, by name.
        skipped: why nothing could be done here; empty if it could.
    """

    count: int = 0
    wrong: list[str] = attrs.field(factory=list)
    notes: Counter[str] = attrs.field(factory=Counter)
    skipped: str = ""

    def add(self, other: Tally) -> None:
        """Take in another round's."""
        self.count += other.count
        self.wrong += other.wrong
        self.notes += other.notes
        self.skipped = other.skipped


def kernels() -> dict[str, Path]:
    """Real kernels by file name, of the folder that PVOPS_KERNELS names."""
    folder = os.environ.get("PVOPS_KERNELS", "")
    found = sorted(Path(folder).glob("vmlinuz-*")) if folder else []
    return {path.name: path for path in found}


NO_KERNELS = Tally(skipped="PVOPS_KERNELS names no folder with kernels")
