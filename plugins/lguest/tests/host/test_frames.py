"""The host's own frames."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_lguest.host.frames import FramePool

from pvops_core.machine.memory import PhysicalMemory

FIRST, COUNT = 4, 6


@settings(deadline=None)
@given(steps=st.lists(st.integers(-1, COUNT - 1), max_size=40))
def test_frames_are_zero_and_nobody_has_one_twice(steps: list[int]) -> None:
    memory = PhysicalMemory(16 << 12)
    pool, held = FramePool(memory, FIRST, COUNT), list[int]()
    for step in steps:
        if step < 0 or not held:
            pa = pool.take()
            assert (pa is None) == (len(held) == COUNT)
            if pa is not None:
                assert pa not in held
                assert FIRST << 12 <= pa < FIRST + COUNT << 12
                assert not any(memory.read(pa, 4096))
                memory.write(pa, b"\xff" * 4096)
                held.append(pa)
        else:
            pool.give(held.pop(step % len(held)))
        assert pool.available + len(held) == COUNT


def test_the_lowest_comes_first_and_a_saved_pool_gives_the_same_again() -> None:
    pool = FramePool(PhysicalMemory(16 << 12), FIRST, COUNT)
    assert pool.take() == FIRST << 12
    saved = pool.save()
    again = [pool.take() for _ in range(COUNT)]
    pool.load(saved)
    assert [pool.take() for _ in range(COUNT)] == again
    assert again[-1] is None
