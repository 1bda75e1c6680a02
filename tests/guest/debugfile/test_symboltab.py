"""The symbol table: which section, type and size a symbol has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.guest.debugfile.symboltab import Extent, tabulate
from pvops_core.images.kallsyms import SymbolColumns

EXTENTS = [Extent(0x1000, 0x1100, executable=True), Extent(0x1100, 0x1200, executable=False), Extent(0, 0x80, False)]  # noqa: FBT003


def told(columns: SymbolColumns, bits: int = 64) -> dict[tuple[str, int], tuple[int, int, int]]:
    """By name and address: info, section and size."""
    symbols = tabulate(columns, EXTENTS, bits)
    found = {}
    for name, value, info, section, size in symbols.table[["name", "value", "info", "shndx", "size"]].tolist():
        text = symbols.names[name : symbols.names.index(b"\0", name)].decode()
        found[text, value] = (info, section, size)
    return found


def test_a_symbol_reaches_to_the_next_or_to_its_sections_end() -> None:
    columns = SymbolColumns(
        ["last", "first", "alias", "datum", "counter", "outside", "end"],
        [0x10C0, 0x1000, 0x1000, 0x1180, 0x40, 0x5000, 0x1200],
        [True, True, False, False, False, True, True],
    )
    for bits in (64, 32):
        assert told(columns, bits) == {
            ("first", 0x1000): (0x12, 1, 0xC0),
            ("alias", 0x1000): (0x02, 1, 0xC0),
            ("last", 0x10C0): (0x12, 1, 0x40),
            ("datum", 0x1180): (0x01, 2, 0x80),
            ("counter", 0x40): (0x01, 3, 0x40),
            ("outside", 0x5000): (0x11, 0xFFF1, 0),
            ("end", 0x1200): (0x11, 0xFFF1, 0),
        }
    symbols = tabulate(columns, EXTENTS, 64)
    assert (symbols.locals, symbols.functions) == (3, 3)
    assert list(symbols.spans()) == [(0x1000, 0x10C0), (0x10C0, 0x1100)]


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), st.integers(0, 0x1300))
    )
)
def test_every_symbol_is_there_and_functions_do_not_overlap(symbols: list[tuple[str, int]]) -> None:
    names, places = [name for name, _ in symbols], [place for _, place in symbols]
    columns = SymbolColumns(names, places, [place % 2 == 0 for place in places])
    assert told(columns).keys() == set(symbols)
    table = tabulate(columns, EXTENTS, 64)
    assert sorted(table.table["info"] >> 4) == list(table.table["info"] >> 4)
    end = 0
    for start, stop in table.spans():
        assert end <= start < stop <= 0x1100
        end = stop
