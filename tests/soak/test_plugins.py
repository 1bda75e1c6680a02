"""The zoo of bad plugins: every pair once, sources that are Python, and two that are held to what must be said."""

from __future__ import annotations

import ast

import pytest

from soak.attackers import plugins
from soak.attackers.plugins import BadPlugin


def test_as_many_rounds_as_there_are_pieces_make_every_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[BadPlugin] = []
    monkeypatch.setattr(plugins, "_wrong", lambda case: made.append(case) or "")
    there = plugins.cases()
    assert len(there) > 300
    assert sum(plugins.play(seed).count for seed in range(-(-len(there) // plugins.A_ROUND))) == len(there)
    assert {(each.deed, each.place) for each in made} == {(each.deed, each.place) for each in there}


def test_every_plugin_is_python() -> None:
    for case in plugins.cases():
        ast.parse(case.source())


@pytest.mark.slow
@pytest.mark.parametrize("place", ["load", "save_fl at 3"])
def test_a_case_is_what_it_should_be(place: str) -> None:
    assert plugins._wrong(BadPlugin("surrogate", place)) == ""


def test_what_is_not_said_is_noticed() -> None:
    case = BadPlugin("value", "set_pte at 1")
    unplaced = "outcome error: bad.py, hook set_pte"
    good = f"{unplaced}, called from start_kernel"
    assert plugins._said_wrong(case, 4, good, 1) == ""
    for code, said in ((4, "outcome"), (4, "bad.py"), (4, unplaced), (0, good), (9, good), (4, good + "\x1b[31m")):
        assert plugins._said_wrong(case, code, said, 1)
    assert "ours" in plugins._said_wrong(case, 4, '  File "/x/pvops_core/a.py", line 1\n' + good, 1)
