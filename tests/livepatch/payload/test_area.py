"""Pages that are set aside for payloads."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.payload.area import PayloadArea
from pvops_core.x86 import PAGE

BASE, PAGES = 0xFFFF_8000_0000_0000, 12


@given(steps=st.lists(st.one_of(st.integers(-8, -1), st.integers(0, 5 * PAGE)), max_size=30))
def test_no_page_has_two_owners_and_none_is_lost(steps: list[int]) -> None:
    area, held, refused = PayloadArea(BASE, PAGES), dict[int, int](), list[int]()
    for step in steps:
        if step >= 0:
            wanted = max(1, -(-step // PAGE))
            try:
                address = area.allocate(step)
            except LivepatchError as error:
                assert step > 0
                refused.append(error.errno)
                continue
            pages = range(address, address + wanted * PAGE, PAGE)
            assert all(page in area and page != area.landing for page in pages)
            assert not set(pages) & {
                at for start, count in held.items() for at in range(start, start + count * PAGE, PAGE)
            }
            held[address] = wanted
        elif held:
            address = sorted(held)[step % len(held)]
            area.release(address)
            del held[address]
        assert area.free == PAGES - 1 - sum(held.values())
    assert set(refused) <= {errno.ENOMEM}


def test_a_saved_area_gives_the_same_again_and_the_first_page_is_nobody_s() -> None:
    area = PayloadArea(BASE, PAGES)
    first = area.allocate(1)
    saved = area.save()
    second = area.allocate(3 * PAGE)
    area.load(saved)
    assert area.allocate(3 * PAGE) == second == first + PAGE
    with pytest.raises(LivepatchError, match="pages are wanted"):
        area.allocate(PAGES * PAGE)
