"""Guest-physical memory: the guest's share, and a kill for anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import GuestMemory, VirtualGuestMemory

from pvops_core.machine.memory import PhysicalMemory

LIMIT = 4 << 12


@settings(deadline=None)
@given(pa=st.integers(-16, LIMIT + 16), length=st.integers(0, 64))
def test_only_what_lies_below_the_limit_is_there(pa: int, length: int) -> None:
    guest = GuestMemory(PhysicalMemory(8 << 12), LIMIT)
    if 0 <= pa <= pa + length <= LIMIT:
        guest.write(pa, bytes(length))
        assert guest.read(pa, length) == bytes(length)
    else:
        with pytest.raises(GuestKilledError, match="bad read address"):
            guest.read(pa, length)
        with pytest.raises(GuestKilledError, match="bad write address"):
            guest.write(pa, bytes(length))


@settings(deadline=None)
@given(va=st.integers(0, (3 << 12) - 4), value=st.integers(0, (1 << 32) - 1))
def test_a_word_on_two_pages_goes_to_two_frames(va: int, value: int) -> None:
    guest = GuestMemory(PhysicalMemory(8 << 12), LIMIT)
    frames = {0: 2 << 12, 1: 0, 2: 3 << 12}
    VirtualGuestMemory(guest, lambda at: frames[at >> 12] + (at & 0xFFF)).set_u32(va, value)
    found = bytes(guest.read(frames[at >> 12] + (at & 0xFFF), 1)[0] for at in range(va, va + 4))
    assert int.from_bytes(found, "little") == value
