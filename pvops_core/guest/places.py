"""Places in a run that a user names: an instruction of the guest's, or a time of its virtual clock.

``SYMBOL`` (as :mod:`pvops_core.guest.symbols` finds it), ``SYMBOL+OFFSET``, ``0xADDRESS`` of an instruction in the
guest's text, or a virtual time since the machine was made: ``1500ns``, ``20us``, ``1.5ms``, ``2s``.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import UsageError
from pvops_core.guest.symbols import find_symbol

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

_TIME: Final = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,9})?)(?P<unit>ns|us|ms|s)\Z")
_UNITS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{1,16}\Z")
_OFFSET: Final = re.compile(r"(?P<symbol>.+)\+(?P<offset>0x[0-9a-fA-F]{1,8}|\d{1,9})\Z")


@attrs.frozen
class TextPlace:
    """A place.

    Attributes:
        address: guest-virtual address of an instruction; None for a time.
        ns: virtual time in nanoseconds; None for an instruction.
    """

    address: int | None = None
    ns: int | None = None


def find_place(image: KernelImage, text: str) -> TextPlace:
    """The place of a text.

    Raises:
        UsageError: the guest has no such symbol, or no text is at the address.
        ImageError: its symbols are damaged.
    """
    # A time first: no symbol begins with a digit.
    if (ns := find_time(text)) is not None:
        return TextPlace(ns=ns)
    if _ADDRESS.match(text):
        return TextPlace(_in_text(image, int(text, 16), text))
    # A symbol may have a plus in its name; the whole name has precedence.
    if (distance := _OFFSET.match(text)) and text not in image.symbols:
        address = find_symbol(image, distance["symbol"]) + int(distance["offset"], 0)
        return TextPlace(_in_text(image, address, text))
    return TextPlace(find_symbol(image, text))


def find_time(text: str) -> int | None:
    """The virtual time of a text, in nanoseconds; None if it is none."""
    time = _TIME.match(text)
    # Decimal, for a float of 1.1 ms is not 1,100,000 ns.
    return int(Decimal(time["number"]) * _UNITS[time["unit"]]) if time else None


def _in_text(image: KernelImage, address: int, text: str) -> int:
    section = image.section_at(address)
    # An image without sections says nothing of what is text.
    if image.sections and (section is None or not section.executable):
        where = f"section {section.name} is no text" if section else "none of its sections is there"
        raise UsageError(f"{image.path} has no instruction at {text}: {where}")
    return address
