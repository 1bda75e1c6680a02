"""A processor's name: what CPUID says of it is read back by the manuals' rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.machine.cpu.model.identity import AMD, INTEL, MOST, CpuIdentity


@given(*(st.integers(0, MOST[name]) for name in ("family", "model", "stepping")))
def test_the_signature_is_read_back(family: int, model: int, stepping: int) -> None:
    """SDM volume 2, CPUID, leaf 1: the extended family is added to 15; the extended model stands before the model."""
    eax = CpuIdentity(INTEL, family, model, stepping).signature
    assert eax >> 32 == 0
    base = eax >> 8 & 15
    assert base + (eax >> 20 & 255 if base == 15 else 0) == family
    assert (eax >> 16 & 15) << 4 | eax >> 4 & 15 == model
    assert eax & 15 == stepping


@pytest.mark.parametrize("vendor", [INTEL, AMD])
def test_the_vendor_is_spelt_in_ebx_edx_ecx(vendor: str) -> None:
    b, c, d = CpuIdentity(vendor).words
    assert b"".join(word.to_bytes(4, "little") for word in (b, d, c)).decode() == vendor


@pytest.mark.parametrize("vendor", ["", "Intel", "GenuineIntel!", "GenuineÍntel"])
def test_a_vendor_has_twelve_letters(vendor: str) -> None:
    with pytest.raises(ValueError, match="12 characters"):
        CpuIdentity(vendor)
