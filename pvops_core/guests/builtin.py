"""The built-in guest: which there are, and what each says at its end."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from pvops_core.errors import unknown
from pvops_core.guests.report import FORMAT, REPORT_SYMBOL, Report
from pvops_core.hookspecs.guest import GuestImage
from pvops_core.images import load_image

LAYOUTS: tuple[str, ...] = ("2.6.23-lapic", "2.6.23-lapic-pae", "2.6.24", "2.6.24-pae", "6.1-64")
"""Layouts for which there is a built-in guest."""

OBJECTS = Path(__file__).parent / "objects"


@cache
def builtin(layout_name: str) -> GuestImage:
    """The built-in guest of a layout; UsageError if there is none."""
    if layout_name not in LAYOUTS:
        raise unknown("built-in guest for layout", layout_name, LAYOUTS)
    path = OBJECTS / f"guest-{layout_name}.elf"
    return GuestImage(layout_name, load_image(path.read_bytes(), f"the built-in guest of {layout_name}"))


def parse_report(guest: GuestImage, read: Callable[[int, int], bytes]) -> Report:
    """What the guest wrote into its report so far.

    Args:
        guest: the guest.
        read: gives bytes of its memory, by virtual address and length.

    Raises:
        MachineError: the report is damaged.
    """
    return Report.unpack(read(guest.symbols[REPORT_SYMBOL], FORMAT.size))
