from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

from msgspec.structs import replace

from pvops_core.study.diff import Change, diff_junit, lines_of, study_diff
from pvops_core.study.rows import Row

MakeRow = Callable[..., Row]


def timed(row: Row, wall_s: float) -> Row:
    return replace(row, measured=replace(row.measured, wall_s=wall_s, host="elsewhere", ended=9, key="ff" * 32))


def test_what_depends_on_the_machine_is_no_change(make_row: MakeRow) -> None:
    old = [make_row(seed=seed) for seed in range(3)]
    found = study_diff(old, [timed(row, 9.0) for row in old])
    assert (found.verdict, found.exit_code, found.changed) == ("No change in 3 cells.", 0, ())
    assert list(lines_of(found, old)) == []


def test_every_other_column_counts(make_row: MakeRow) -> None:
    old = [make_row("xen", seed=seed) for seed in range(3)]
    new = [*old[:2], make_row("xen", seed=2, instructions=1001, console="guest: ill\n")]
    found = study_diff(old, new)
    assert (found.verdict, found.exit_code) == ("1 of 3 cells changed.", 5)
    (changed,) = found.changed
    assert changed.cell == old[2].axes
    assert changed.changes["instructions"] == Change(1000, 1001)
    assert changed.changes.keys() == {"instructions", "results_sha256"}
    assert "  instructions: in 1" in list(lines_of(found, old))


def test_cells_of_one_side(make_row: MakeRow) -> None:
    old, new = [make_row(), make_row("xen")], [make_row(), make_row("lguest")]
    found = study_diff(old, new)
    assert (found.verdict, found.exit_code) == ("No change in 1 cell; 1 are missing; 1 are new.", 5)
    assert study_diff(old[:1], new).exit_code == 0
    assert study_diff(old[1:], new).exit_code == 3


def test_wall_time_by_more_than_chance(make_row: MakeRow) -> None:
    old = [timed(make_row(seed=seed), 1.0 + seed / 100) for seed in range(8)]
    slower = [timed(row, 1.5 * row.measured.wall_s) for row in old]
    (wall,) = study_diff(old, slower).wall
    assert wall.runs == 8
    assert wall.wall_s.ratio is not None
    assert 1.4 < wall.wall_s.ratio < 1.6
    assert study_diff(old, slower).exit_code == 0
    assert any(
        line.startswith("wall time of native: 1.5 times as long") for line in lines_of(study_diff(old, slower), old)
    )
    assert study_diff(old, [*old[:4], *slower[4:6], *old[6:]]).wall == ()
    assert study_diff(old[:3], slower[:3]).wall == ()


def test_junit(make_row: MakeRow) -> None:
    old = [make_row(seed=seed) for seed in range(3)]
    new = [old[0], make_row(seed=1, reason="a\x00b <c>")]
    root = ET.fromstring(diff_junit(study_diff(old, new), new))
    assert (root.get("tests"), root.get("failures")) == ("3", "2")
    cases = [(case.get("classname"), [each.get("type") for each in case]) for case in root]
    assert cases == [("native", []), ("native", ["changed"]), ("native", ["missing"])]
    assert "seed=1" in str(root[1].get("name"))
