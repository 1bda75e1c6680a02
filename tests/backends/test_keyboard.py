from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.backends.keyboard import Keyboard, Look, Replay, Stroke


def test_what_is_typed_is_taken_once_and_in_order() -> None:
    keyboard = Keyboard(b"ab")
    keyboard.type(b"c")
    assert keyboard.take(7) == Stroke(Look(7), b"abc")
    assert keyboard.take(7) is None


def test_nobody_waits_for_a_keyboard_that_nobody_uses() -> None:
    keyboard = Keyboard()
    assert not keyboard.in_use
    assert not keyboard.wait(0, lambda: False)


def test_waiting_ends_with_a_key_with_the_end_and_when_given_up() -> None:
    keyboard = Keyboard()
    keyboard.listen()
    assert not keyboard.wait(0, lambda: True)
    assert not keyboard.wait(0, lambda: False, seconds=0.01)
    acts = (lambda: keyboard.type(b"x"), True), (lambda: keyboard.leave("enough"), True), (keyboard.end, False)
    for act, found in acts:
        timer = threading.Timer(0.02, act)
        timer.start()
        assert keyboard.wait(0, lambda: False) is found
        timer.join()
        keyboard.take(0)


def test_leaving_is_a_stroke_of_its_own_and_the_first_reason_counts() -> None:
    keyboard = Keyboard()
    heard: list[Stroke] = []
    keyboard.heard = heard.append
    keyboard.type(b"x")
    keyboard.leave("Ctrl-A x")
    keyboard.leave("SIGTERM")
    assert keyboard.take(3) == Stroke(Look(3), b"x", "Ctrl-A x")
    assert heard == [Stroke(Look(3), b"x", "Ctrl-A x")]
    assert keyboard.take(3) is None


def test_asking_is_a_stroke_too() -> None:
    keyboard = Keyboard()
    keyboard.ask()
    assert keyboard.wait(5, lambda: False)
    assert keyboard.take(5) == Stroke(Look(5), b"", "", asking=True)
    assert keyboard.take(5) is None


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=2), st.booleans()), max_size=30))
def test_a_replay_gives_each_stroke_at_the_look_that_took_it(looks: list[tuple[int, bytes, bool]]) -> None:
    """Whatever the looks of a run are, several at one time among them, and whatever comes before which."""
    keyboard, heard, times, now = Keyboard(), list[Stroke](), list[int](), 0
    keyboard.heard = heard.append
    for step, typed, leaving in looks:
        now += step
        times.append(now)
        keyboard.type(typed)
        if leaving:
            keyboard.leave("left")
        keyboard.take(now)
    replay = Replay(tuple(heard))
    again = [stroke for ns in times if (stroke := replay.take(ns)) is not None]
    assert again == heard


def test_a_replay_ends_a_sleep_where_a_key_did() -> None:
    replay = Replay((Stroke(Look(50), b"x"), Stroke(Look(60, 1), b"y")))
    assert replay.sleep(10, 30) == 30, "the guest's own timer comes before"
    assert replay.sleep(30, 1000) == 50
    assert replay.take(50) == Stroke(Look(50), b"x")
    assert replay.sleep(50, 1000) == 60
    assert replay.take(60) is None
    assert replay.wait(60, lambda: False), "the next look at this time is the one"
    assert replay.take(60) == Stroke(Look(60, 1), b"y")
    assert replay.sleep(60, 1000) == 1000
    assert not replay.wait(60, lambda: False), "nobody else types"


def test_a_replay_of_another_run_gives_what_is_overdue() -> None:
    replay = Replay((Stroke(Look(50), b"x"), Stroke(Look(50, 1), b"y")))
    assert replay.sleep(70, 80) == 80
    assert [replay.take(70), replay.take(70)] == [Stroke(Look(70), b"x"), Stroke(Look(70, 1), b"y")]
