"""Whose processor it is, as CPUID says: vendor, family, model and stepping."""

from __future__ import annotations

from typing import Final

import attrs

_VENDOR_SIZE: Final = 12
_EXTENDED_FAMILY: Final = 15
"""From this family on what is more stands apart (AMD APM volume 3, CPUID 1; Intel SDM volume 2, CPUID)."""

INTEL: Final = "GenuineIntel"
AMD: Final = "AuthenticAMD"
HYGON: Final = "HygonGenuine"
MOST: Final = {"family": 15 + 255, "model": 255, "stepping": 15}
"""The largest that CPUID can say."""


@attrs.frozen
class CpuIdentity:
    """A processor's name in numbers.

    Attributes:
        vendor: twelve characters of ASCII.
        family: of the processor, with its extension.
        model: within the family, with its extension.
        stepping: within the model.
    """

    vendor: str = attrs.field(default=INTEL)
    family: int = 6
    model: int = 15
    stepping: int = 1

    @vendor.validator
    def _twelve(self, _attribute: attrs.Attribute[str], value: str) -> None:
        if not value.isascii() or len(value) != _VENDOR_SIZE:
            raise ValueError(f"a vendor is {_VENDOR_SIZE} characters of ASCII, not {value!r}")

    @property
    def words(self) -> tuple[int, int, int]:
        """The vendor as EBX, ECX and EDX of leaf 0."""
        # EBX, EDX, ECX is the order of the letters (SDM volume 2, CPUID, leaf 0).
        b, d, c = (int.from_bytes(self.vendor.encode()[at : at + 4], "little") for at in (0, 4, 8))
        return b, c, d

    @property
    def signature(self) -> int:
        """EAX of leaf 1."""
        family = min(self.family, _EXTENDED_FAMILY)
        # Families above 15 add an extension at bit 20, the model's high half is at bit 16 (SDM volume 2, CPUID, leaf
        # 1).
        more = self.family - family << 20 | self.model >> 4 << 16
        return more | family << 8 | (self.model & 15) << 4 | self.stepping
