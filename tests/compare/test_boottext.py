from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from pvops_core.compare.comparison import Choice, Comparison, grouped
from pvops_core.compare.document import compare_result
from pvops_core.compare.page import page
from pvops_core.compare.text import print_comparison
from pvops_core.records import document
from pvops_core.runs.inside import BootPoint
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.plan import Skipped

Make = Callable[..., Observation]


def point(virtual_ns: int, traps: int) -> BootPoint:
    return BootPoint(virtual_ns, 0.0, vcpu=0, traps=traps, hypercalls=0, page_table_updates=0, ports=0)


POINTS = {"start_kernel": point(100, 1), "alternatives": point(1000, 5), "patched": point(1100, 5)}


@pytest.fixture
def comparison(make: Make) -> Comparison:
    common: dict[str, Any] = {"layout": "", "cell": {"guest": "/boot/vmlinuz-6"}, "results": {}}
    native = make(
        **common,
        console="Linux\nnative here\n",
        instructions=0,
        counts={"ops": {}, "machine": {"port_reads": 40, "port_writes": 2}},
        sites={"irq_disable": {"inlined": 2}, "wbinvd": {"inlined": 1}},
        site_codes={"irq_disable": {"0x10": "fa", "0x20": "fa"}, "wbinvd": {"0x30": "0f09"}},
        sites_note="read at free_initmem",
        points=POINTS,
    )
    xen = make(
        "xen",
        **common,
        console="Linux\nxen here\n",
        counts={"ops": {"irq_disable": 77}, "own": {"irq_disable": 70}},
        sites={"irq_disable": {"direct": 2}, "wbinvd": {"inlined": 1}},
        site_codes={"irq_disable": {"0x10": "e8", "0x20": "e8"}, "wbinvd": {"0x30": "0f09"}},
        sites_note="read when the run ended",
        points=POINTS,
    )
    dead = make(
        "bad", **common, outcome=Outcome.TIMEOUT, reason="at start+0x2", site_codes={}, sites_note="not read: x"
    )
    return Comparison(grouped([native, xen, dead]), skipped=(Skipped("lguest", "", "lguest cannot boot"),))


def printed(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_comparison(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_each_backend_is_a_column(comparison: Comparison) -> None:
    text = printed(comparison)
    assert "x86_64 · vmlinuz-6 · 1 vCPU" in text
    table = rows(text)
    assert ["outcome", "poweroff", "poweroff", "timeout"] in table
    assert ["port", "accesses", "42", "0", "0"] in table
    assert ["op", "calls", "-", "77", "1,234"] not in table
    assert ["op", "calls", "-", "77", "1,238"] in table
    assert ["own", "-", "70", "-"] in table
    assert ["instructions", "-", "1,234,567", "1,234,567"] in table
    assert ["setup", "native", "900", "ns", "0", "ns", "4", "0", "0", "0"] in table
    assert "Not run: lguest cannot boot." in text
    assert "bad: timeout: at start+0x2" in text


def test_sites_and_lines_that_differ_are_told_of(comparison: Comparison) -> None:
    text = printed(comparison)
    assert "2 of 3 call sites differ between native and xen (read at free_initmem and read when the run ended)" in text
    assert ["irq_disable", "2", "2", "2", "inlined", "2", "direct;", "77", "calls"] in rows(text)
    assert "Call sites of bad: not read: x" in text
    assert "  - native here" in text
    assert "  + xen here" in text


def test_a_report_is_narrowed_to_phases_and_ops(comparison: Comparison) -> None:
    narrow = Comparison(comparison.groups, choice=Choice(("entry",), ("wbinvd",)))
    table = rows(printed(narrow))
    assert ["wbinvd", "1", "0", "1", "inlined", "1", "inlined"] in table
    assert not any(row[:1] == ["irq_disable"] for row in table)
    assert any(row[:2] == ["entry", "native"] for row in table)
    assert not any(row[:2] == ["setup", "native"] for row in table)
    (group,) = document(compare_result(narrow))["groups"]
    assert group["boots"][0]["sites_by_op"] == {"wbinvd": {"sites": 1, "differing": 0}}
    assert group["boots"][0]["differing"] == []


def test_the_document_has_every_site_and_line_that_differs(comparison: Comparison) -> None:
    (group,) = document(compare_result(comparison))["groups"]
    boot = group["boots"][0]
    assert (boot["reference"], boot["backend"], boot["sites"], boot["sites_differing"]) == ("native", "xen", 3, 2)
    assert boot["differing"][0] == {"op": "irq_disable", "address": "0x10", "expected": "fa", "found": "e8"}
    assert boot["console"] == [["native here", "xen here"]]
    assert boot["console_alike"] == 2
    assert document(compare_result(comparison))["cells"][0]["points"] == document(POINTS)


def test_the_page_shows_boots(comparison: Comparison) -> None:
    text = page(comparison)
    assert "2 of 3 call sites differ between native (read at free_initmem) and xen (read when the run ended)" in text
    assert "Phases of the boot" in text
    assert "native here" in text


def test_what_no_boot_has_counted_has_neither_row_nor_column(comparison: Comparison) -> None:
    native = comparison.groups[0].observations[0]
    for text in (printed(alone := Comparison(grouped([native]))), page(alone).partition("</thead>")[0]):
        assert "port accesses" in text
        assert "op calls" not in text.replace("Op calls", "")
        assert ">instructions" not in text
    assert "op calls" in printed(comparison)
