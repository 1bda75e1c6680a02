from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from pvops_core.compare.columns import abbreviated
from pvops_core.compare.comparison import Comparison, grouped
from pvops_core.compare.text import print_comparison
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.plan import Skipped
from pvops_core.switchboard.findings import SiteUse, SiteUseEnd

Make = Callable[..., Observation]


def printed(comparison: Comparison, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_comparison(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, backend: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(backend))
    return line.split()


def test_a_wide_table_has_every_cost_in_full(make: Make) -> None:
    text = printed(Comparison(grouped([make(), make("xen")])))
    assert "x86_64 · layout 6.1-64 · 1 vCPU" in text
    expected = "xen equal 1,238 0 2 1 4 1 12 347 1,200 31 1,234,567 2.35 ms 810 ms"
    assert row(text, "xen") == expected.split()
    assert text.rstrip().endswith("Results are equal in the one group, over 2 runs.")


def test_a_form_of_site_that_no_run_has_takes_no_column(make: Make) -> None:
    without = make("xen", sites={"save_fl": {"direct": 3}})
    assert "nop" not in printed(Comparison(grouped([without])))
    assert "nop" in printed(Comparison(grouped([make(), without])))


def test_a_form_of_site_that_is_new_gets_a_column(make: Make) -> None:
    assert "trampoline" in printed(Comparison(grouped([make("xen", sites={"save_fl": {"trampoline": 3}})])))


@pytest.mark.parametrize("width", [40, 60, 80, 90, 100, 120, 160])
def test_no_line_is_wider_than_the_terminal(make: Make, width: int) -> None:
    big = make("xen", instructions=123_456_789, counts={"ops": {"set_pte": 4_567_890}}, virtual_ns=98_765_432_100)
    comparison = Comparison(grouped([make(), big, make("lguest", layout="2.6.23", kind="i386")]))
    text = printed(comparison, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_differences_are_explained(make: Make) -> None:
    console = "".join(f"guest: line {n}\n" for n in range(9))
    text = printed(Comparison(grouped([make(), make("xen", results={"digest": "0"}, console=console)])))
    assert row(text, "xen ")[:2] == ["xen", "DIFFERENT"]
    assert row(text, "native ")[:2] == ["native", "reference"]
    assert "results.digest: native has 5eed, xen has 0" in text
    assert "… and 6 more" in text


@pytest.mark.parametrize(("becomes", "ours", "theirs"), [("uncalled", False, True), ("lost", True, True)])
def test_ops_that_are_never_called_are_told_of_others_backends(
    make: Make, *, becomes: SiteUseEnd, ours: bool, theirs: bool
) -> None:
    own = {"save_fl": SiteUse(becomes, 0, 1, 0, {}, "save_fl is yours, but")}
    text = printed(Comparison(grouped([make(own=own), make("kvm", own=own)])))
    assert ("native: save_fl is yours" in text, "kvm: save_fl is yours" in text) == (ours, theirs)


def test_failures_say_why_and_show_the_last_lines(make: Make) -> None:
    detail = "\n".join(f"line {n}" for n in range(30))
    crashed = make("xen", outcome=Outcome.CRASH, reason="[red]paravirt_BUG", detail=detail)
    text = printed(Comparison(grouped([make(), crashed])))
    assert "xen: crash: [red]paravirt_BUG" in text
    assert "| line 29" in text
    assert "| line 5\n" not in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_run_that_was_lost_has_no_numbers(make: Make, width: int) -> None:
    lost = Observation(make("xen").cell, Outcome.DIED, reason="killed")
    columns = row(printed(Comparison(grouped([make(), lost])), width), "xen")
    assert columns[1] == "died"
    assert set(columns[2:]) == {"-"}


def test_what_was_skipped_is_said_once_for_a_reason(make: Make) -> None:
    skipped = tuple(Skipped("xen", layout, "xen has no i386") for layout in ("2.6.23", "2.6.24"))
    text = printed(Comparison(grouped([make()]), skipped=skipped))
    assert "Not run: xen has no i386 (2.6.23, 2.6.24)." in text
    assert row(text, "native")[:2] == ["native", "alone"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (9999, "9999"), (12345, "12.3k"), (123_456, "123k"), (1_234_567, "1.2M"), (5e9, "5.0G")],
)
def test_abbreviated(value: float, text: str) -> None:
    assert abbreviated(value) == text
