"""Symbols by name and by address."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.images.kallsyms import SymbolColumns
from pvops_core.images.symbols import build

ROWS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9), st.booleans()), max_size=12)


@given(rows=ROWS)
def test_a_global_name_wins_then_the_first_and_the_others_are_shared(rows: list[tuple[str, int, bool]]) -> None:
    names, places, exported = ([row[at] for row in rows] for at in range(3))
    table = build("test", SymbolColumns(names, places, exported))
    assert set(table.by_name) == set(names)
    assert table.addresses == sorted(set(places))
    for name in set(names):
        mine = [(place, global_) for each, place, global_ in rows if each == name]
        wins = next((place for place, global_ in mine if global_), mine[0][0])
        assert table.by_name[name] == wins
        every = tuple(sorted({place for place, _ in mine}))
        assert table.shared.get(name, (wins,)) == every
    for address, name in zip(table.addresses, table.names, strict=True):
        assert (name, address) in {(each, place) for each, place, _ in rows}
