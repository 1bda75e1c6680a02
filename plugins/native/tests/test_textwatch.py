"""Text that is compared when processors have spoken to each other."""

from __future__ import annotations

from text_rig import BASE, SIZE, Watched


def test_nothing_changed_is_nothing_told(watched: Watched) -> None:
    watched.watch().look(told=True)
    assert watched.told == []


def test_what_changed_is_told_once_and_by_page(watched: Watched) -> None:
    watch = watched.watch()
    watched.change(0, 5, 0xFBF, 0xFC0, 0x8FFF)
    watch.look(told=True)
    watch.look(told=True)
    assert watched.told == [[(BASE, BASE + 0xFC0), (BASE + 0xFC0, BASE + 0xFC1), (BASE + 0x8FFF, BASE + 0x9000)]]


def test_many_changes_are_told_at_once(watched: Watched) -> None:
    watch = watched.watch()
    watched.change(*range(0, SIZE, 3))
    watch.look(told=True)
    [ranges] = watched.told
    assert len(ranges) == 10


def test_what_was_learnt_is_no_change(watched: Watched) -> None:
    watch = watched.watch()
    watched.change(7)
    watch.learn()
    watch.look(told=True)
    assert watched.told == []
