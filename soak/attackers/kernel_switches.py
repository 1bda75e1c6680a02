"""Switches of a Linux's ops while its user space is at work, by the storm of the tests."""

from __future__ import annotations

from typing import Final

from soak.tally import NO_KERNELS, Tally, kernels
from tests.session.kernels import opstorm

COUNT: Final = 1000


def play(seed: int) -> Tally:
    """Boot one of the kernels that Xen hosts and switch its ops."""
    there = sorted((path for name, path in kernels().items() if "cloud" in name and "-7." not in name), key=str)
    if not there:
        return NO_KERNELS
    found = opstorm.storm(there[seed % len(there)], "xen", COUNT, seed)
    tally = Tally(found.asked, list(found.wrong))
    tally.notes.update({"calls": found.calls.total(), "late": len(found.late), "refused": len(found.refused)})
    return tally
