"""Frames made of ORC: a reader of DWARF finds at each place what ORC says there."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.guest.debugfile.frames import debug_frame
from pvops_core.guest.stacks.orc import Base, Orc, OrcEntry, OrcKind
from tests.guest.debugfile.test_cfi import entries
from tests.guest.stacks.frames import LINES, TEXT, Line, tables

if TYPE_CHECKING:
    from elftools.dwarf.callframe import CFARule, RegisterRule

_SAVED = {"r15": (15, 0), "rbx": (3, 40), "rax": (0, 80), "rdi": (5, 112)}
"""Some of struct pt_regs: numbers in DWARF, and offsets."""
_KNOWN = {Base.AX: 0, Base.DX: 1, Base.DI: 5, Base.R10: 10, Base.R13: 13}


@lru_cache(maxsize=2)
def ranges(section: bytes) -> list[tuple[range, list, bytes]]:  # type: ignore[type-arg]
    """What a reader finds: for each range of text its rows, and its common entry's augmentation."""
    return [
        (
            range(entry["initial_location"], entry["initial_location"] + entry["address_range"]),
            entry.get_decoded().table,
            entry.cie["augmentation"],
        )
        for entry in (entries(section) if section else [])
        if "initial_location" in entry.header
    ]


def row_at(section: bytes, place: int) -> tuple[dict, bytes] | None:  # type: ignore[type-arg]
    """What a reader finds for a place, and its common entry's augmentation."""
    for covered, rows, augmentation in ranges(section):
        if place in covered:
            return [row for row in rows if row["pc"] <= place][-1], augmentation
    return None


def rule(row: dict, register: int) -> tuple[str, object]:  # type: ignore[type-arg]
    found: RegisterRule = row[register]
    return found.type, found.arg


def check(section: bytes, orc: Orc, place: int) -> None:
    entry, found = orc.find(place), row_at(section, place)
    if entry is not None and entry.sp_base is Base.PREV_SP and entry.kind is not OrcKind.END:
        entry = None  # no stack is reckoned from itself
    if found is None:
        assert entry is None
        return
    row, augmentation = found
    if entry is None or entry.kind is OrcKind.END:
        assert rule(row, 16) == ("UNDEFINED", None)
        return
    assert augmentation == (b"zS" if entry.interrupted else b"")
    check_frame(row["cfa"], entry)
    base = {OrcKind.CALL: -8, OrcKind.REGS: 128, OrcKind.PARTIAL: 0}[entry.kind]
    assert rule(row, 16) == ("OFFSET", base)
    if entry.kind is not OrcKind.CALL:
        assert rule(row, 7) == ("OFFSET", base + 24)  # where iret takes rsp from
    for number, offset in _SAVED.values():
        assert rule(row, number) == (("OFFSET", offset) if entry.kind is OrcKind.REGS else ("UNDEFINED", None))
    match entry.bp_base:
        case Base.UNDEFINED:
            assert rule(row, 6) == (("OFFSET", 32) if entry.kind is OrcKind.REGS else ("SAME_VALUE", None))
        case Base.PREV_SP:
            assert rule(row, 6) == ("OFFSET", entry.bp_offset)
        case Base.BP:
            assert rule(row, 6) == ("EXPRESSION", [0x76, entry.bp_offset & 0x7F])


def check_frame(found: CFARule, entry: OrcEntry) -> None:
    low = entry.sp_offset & 0x7F
    match entry.sp_base:
        case Base.SP | Base.BP:
            number = 7 if entry.sp_base is Base.SP else 6
            if entry.sp_offset < 0:
                assert found.expr == [0x70 + number, low]
            else:
                assert (found.reg, found.offset) == (number, entry.sp_offset)
        case Base.SP_INDIRECT:
            assert found.expr == [0x77, 0, 6, 0x11, low, 0x22]
        case Base.BP_INDIRECT:
            assert found.expr == [0x76, low, 6]
        case _:
            assert (found.reg, found.offset) == (_KNOWN[entry.sp_base], 0)


def test_all_kinds_in_one_function_and_in_one_each() -> None:
    orc = tables(*LINES, header=True)
    starts = [TEXT + line[0] for line in LINES]
    whole, count = debug_frame(orc, [(TEXT, TEXT + 0x700)])
    assert count == 4  # calls, all registers saved, some of them, calls again; of the last nothing is known
    parts, count = debug_frame(orc, zip(starts, [*starts[1:], TEXT + 0x700], strict=True))
    assert count == len(LINES) - 1
    for start in starts:
        for place in (start, start + 0x20):
            check(whole, orc, place)
            check(parts, orc, place)


_SMALL = st.integers(-8, 7).map(lambda number: number * 8)
_KINDS = st.sampled_from([OrcKind.CALL, OrcKind.REGS, OrcKind.PARTIAL, OrcKind.END, OrcKind.UNKNOWN])
_ROWS = st.tuples(
    st.sampled_from([base for base in Base if base is not Base.AX]),
    _SMALL,
    st.sampled_from([Base.UNDEFINED, Base.PREV_SP, Base.BP]),
    _SMALL,
    _KINDS,
)


@pytest.mark.parametrize("header", [False, True])
@given(rows=st.lists(_ROWS, min_size=1, max_size=12), cuts=st.sets(st.integers(0, 60), min_size=2, max_size=6))
def test_whatever_the_tables_hold(
    rows: list[tuple[Base, int, Base, int, OrcKind]], cuts: set[int], *, header: bool
) -> None:
    first: Line = (0, Base.SP, 8, Base.UNDEFINED, 0, OrcKind.CALL)
    often = [(0x1000 + 4 * number, *first[1:]) for number in range(20)]  # most are of the stack pointer
    orc = tables(first, *((4 * number + 3, *row) for number, row in enumerate(rows)), *often, header=header)
    ordered = sorted(cuts)
    section, _ = debug_frame(orc, [(TEXT + at, TEXT + to) for at, to in pairwise(ordered)])
    for place in range(ordered[0], ordered[-1]):
        check(section, orc, TEXT + place)
    assert row_at(section, TEXT + ordered[0] - 1) is None
    assert row_at(section, TEXT + ordered[-1]) is None


def test_a_kernel_that_was_moved() -> None:
    orc = tables(*LINES, header=False)
    section, _ = debug_frame(orc, [(TEXT + 0x100, TEXT + 0x110)], 0x1D000000)
    assert row_at(section, TEXT + 0x100) is None
    assert row_at(section, TEXT + 0x1D000101) is not None


@pytest.mark.parametrize("spans", [[], [(TEXT + 0x600, TEXT + 0x700)]])
def test_where_nothing_is_known_nothing_is_said(spans: list[tuple[int, int]]) -> None:
    assert debug_frame(tables(*LINES, header=True), spans) == (b"", 0)
