"""Turns: everybody who can run has one a round, in an order that the seed decides, also after going back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.machine.run.scheduler import Scheduler


@given(st.integers(), st.sets(st.integers(0, 20), min_size=1), st.integers(1, 5))
def test_a_round_has_everybody_once(seed: int, awake: set[int], rounds: int) -> None:
    scheduler = Scheduler(seed, 100)
    for _ in range(rounds):
        assert {scheduler.pick(21, awake.__contains__) for _ in awake} == awake


@given(st.integers(), st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=30))
def test_who_sleeps_has_no_turn(seed: int, times: list[set[int]]) -> None:
    scheduler = Scheduler(seed, 100)
    for awake in times:
        assert scheduler.pick(6, awake.__contains__) in awake


@given(st.integers(), st.integers(0, 30), st.integers(1, 1 << 40))
def test_the_seed_decides_and_a_saved_state_goes_on(seed: int, before: int, mean: int) -> None:
    first, second = Scheduler(seed, mean), Scheduler(seed, mean)

    def turns(of: Scheduler, count: int) -> list[tuple[int, int]]:
        return [(of.pick(4, lambda _: True), of.length()) for _ in range(count)]

    assert turns(first, before) == turns(second, before)
    state = first.save()
    then = turns(first, 9)
    other = Scheduler(seed + 1, mean)
    other.load(state)
    assert turns(other, 9) == then


@given(st.integers(), st.integers(1, 1 << 62))
def test_a_slice_is_half_to_one_and_a_half_times_the_mean(seed: int, mean: int) -> None:
    assert max(1, mean // 2) <= Scheduler(seed, 1).around(mean) <= max(1, mean // 2 + mean)
