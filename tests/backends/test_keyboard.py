from __future__ import annotations

import threading

from pvops_core.backends.keyboard import Keyboard


def test_what_is_typed_is_taken_once_and_in_order() -> None:
    keyboard = Keyboard(b"ab")
    keyboard.type(b"c")
    assert keyboard.take() == b"abc"
    assert keyboard.take() == b""


def test_nobody_waits_for_a_keyboard_that_nobody_uses() -> None:
    keyboard = Keyboard()
    assert not keyboard.in_use
    assert not keyboard.wait(lambda: False)


def test_waiting_ends_with_a_key_with_the_end_and_when_given_up() -> None:
    keyboard = Keyboard()
    keyboard.listen()
    assert not keyboard.wait(lambda: True)
    for act, found in ((lambda: keyboard.type(b"x"), True), (keyboard.end, False)):
        timer = threading.Timer(0.02, act)
        timer.start()
        assert keyboard.wait(lambda: False) is found
        timer.join()
        keyboard.take()
