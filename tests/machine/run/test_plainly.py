"""Objects come back from plain data as they were, and share nothing with it."""

from __future__ import annotations

import enum

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.machine.run.plainly import Plainly
from pvops_core.machine.run.stateful import where_not_plain


class Colour(enum.IntEnum):
    """An enumeration."""

    RED = 1
    BLUE = 2


@attrs.frozen
class Inner:
    """What others hold."""

    number: int = 0
    text: str = ""


@attrs.define
class Outer:
    """Everything that a field may be."""

    flag: bool
    colour: Colour
    inner: Inner
    maybe: Inner | None
    time: int | None
    numbers: list[int]
    inners: list[Inner]
    pairs: tuple[tuple[int, int], ...]
    place: tuple[int, str]
    set_: set[int]
    by_number: dict[int, Inner]
    by_name: dict[str, list[int]]
    by_pair: dict[tuple[int, int], int]
    by_pair_deep: dict[tuple[int, int], Inner]


attrs.resolve_types(Outer, globals())
OUTER = st.builds(Outer)


@given(value=OUTER)
def test_what_is_saved_is_plain_and_comes_back_equal(value: Outer) -> None:
    form = Plainly(Outer)
    save, load = form.save, form.load
    state = save(value)
    assert where_not_plain(state) is None
    assert load(state) == value
    assert save(load(state)) == state


@given(value=OUTER)
def test_later_changes_touch_neither_the_state_nor_what_was_made_of_it(value: Outer) -> None:
    form = Plainly(Outer)
    save, load = form.save, form.load
    state, before = save(value), attrs.evolve(value)
    first, second = load(state), load(state)
    for each in (value, first):
        each.numbers.append(5)
        each.inners.append(Inner(7))
        each.set_.add(-1)
        each.by_number[-1] = Inner()
        each.by_name.setdefault("", []).append(1)
        each.by_pair[0, 0] = 1
        each.by_pair_deep[-1, -1] = Inner()
    assert second == load(state)
    assert (second.flag, second.colour, second.pairs) == (before.flag, before.colour, before.pairs)
    assert save(second) == state


@pytest.mark.parametrize("kind", [object, list[object], dict[Inner, int], int | str, tuple[int, Inner]])
def test_what_cannot_be_plain_is_refused(kind: object) -> None:
    with pytest.raises(TypeError, match="cannot be saved as plain data"):
        Plainly(attrs.make_class("Odd", {"field": attrs.field(type=kind)}))  # type: ignore[call-overload]
