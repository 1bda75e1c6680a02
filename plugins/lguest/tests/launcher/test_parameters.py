"""``struct boot_params`` as the launcher fills it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_lguest.launcher.parameters import CMDLINE, boot_parameters


@settings(deadline=None)
@given(memory=st.integers(1 << 20, 1 << 30), initrd=st.integers(0, 1 << 30), size=st.integers(0, 1 << 24))
def test_the_fields_are_where_boot_rst_has_them(memory: int, initrd: int, size: int) -> None:
    page = boot_parameters(memory, initrd, size)

    def word(at: int, length: int = 4) -> int:
        return int.from_bytes(page[at : at + length], "little")

    assert len(page) == 4096
    assert page[0x1E8] == 1, "e820_entries"
    assert (word(0x2D0, 8), word(0x2D8, 8), word(0x2E0)) == (0, memory, 1)
    assert word(0x206, 2) == 0x207, "the first protocol with hardware_subarch"
    assert page[0x211] & 0x40, "KEEP_SEGMENTS"
    assert (word(0x218), word(0x21C), word(0x228)) == (initrd, size, CMDLINE)
    assert word(0x23C) == 1, "hardware_subarch"
