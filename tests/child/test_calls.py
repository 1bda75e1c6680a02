"""Calls in a process of their own: what they give, and what becomes of one that does not come back."""

from __future__ import annotations

import os
import time

import pytest

from pvops_core.child.calls import call_apart
from pvops_core.child.limits import Limits
from pvops_core.child.supervised import ChildLostError, Loss


def loud(word: str, number: int) -> tuple[str, int, int]:
    print(word)  # noqa: T201 - what a plugin might do
    os.write(1, b"below Python\n")
    if not os.fork():
        return ("a fork", 0, 0)
    return word, number, os.getpid()


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_call_gives_what_it_gives_whatever_else_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    word, number, pid = call_apart(loud, "said", 3, limits=Limits())
    assert (word, number) == ("said", 3)
    assert pid != os.getpid()
    out, err = capfd.readouterr()
    assert not out
    assert "said" in err
    assert "below Python" in err


def test_one_that_raises_dies(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ChildLostError, match="exit status 1") as lost:
        call_apart(int, "no number", limits=Limits())
    assert lost.value.loss is Loss.DIED
    assert "no number" in capfd.readouterr().err


def test_one_that_hangs_is_ended() -> None:
    with pytest.raises(ChildLostError) as lost:
        call_apart(time.sleep, 600, limits=Limits(wall_s=1.5))
    assert lost.value.loss is Loss.TIMEOUT
