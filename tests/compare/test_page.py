from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pvops_core.compare.comparison import Comparison, grouped
from pvops_core.compare.page import page
from pvops_core.compare.plots import SERIES
from pvops_core.compare.text import print_comparison
from pvops_core.errors import PluginError
from pvops_core.runs.counts import PlatformCounts
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.plan import Skipped
from pvops_core.switchboard.findings import SiteUse
from tests.pagereader import BROWSER, Reader, shown_widths

Make = Callable[..., Observation]


@pytest.fixture
def comparison(make: Make) -> Comparison:
    other = make("xen", console="guest: memory bad\nguest: digest 5eed\n", results={"digest": "5eed"})
    crashed = make("lguest", layout="2.6.23", kind="i386", outcome=Outcome.CRASH, reason="triple fault", detail="here")
    groups = grouped([make(), other, make(layout="2.6.23", kind="i386"), crashed])
    skipped = (Skipped("xen", "2.6.23", "xen has no i386"),)
    return Comparison(groups, skipped=skipped, command="pvops compare --seed 7")


def test_a_page_says_it_all(comparison: Comparison) -> None:
    reader = Reader(page(comparison))
    for words in [
        comparison.verdict,
        "x86_64 · layout 6.1-64 · 1 vCPU",
        "i386 · layout 2.6.23 · 1 vCPU",
        "xen has no i386",
        "lguest: crash: triple fault",
        "guest: memory bad",
        "mmu_update",
        "2 inlined, 1 direct",
        "pvops compare --seed 7",
        "python 3.11.7",
        "ab" * 32,
    ]:
        assert words in reader.text, words
    assert "svg" in reader.tags


def test_a_page_needs_nothing_from_outside_and_the_same_data_give_the_same_bytes(comparison: Comparison) -> None:
    text = page(comparison)
    reader = Reader(text)
    assert reader.tags & {"script", "link", "iframe", "img", "object", "embed"} == set()
    targets = {value for name, value in reader.attributes if name in {"src", "href", "xlink:href"}}
    assert all(target and target.startswith("#") for target in targets)
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert page(comparison) == text


def test_columns_are_those_of_a_terminal_in_their_order(comparison: Comparison) -> None:
    """And those of call sites have a head in common, in both."""
    console = Console(file=io.StringIO(), width=200)
    print_comparison(comparison, console)
    assert isinstance(console.file, io.StringIO)
    over, *lines = console.file.getvalue().splitlines()
    assert over.strip().strip("─") == " call sites "
    (line,) = (line for line in lines if line.startswith("xen "))
    text = page(comparison)
    (row,) = re.findall(r"<td>xen</td><td class.*?</tr>", text, re.DOTALL)
    assert re.sub(r"<[^>]*>", " ", row).split() == line.split()
    (spanned,) = re.findall(r'colspan="(\d)">call sites</th>', text)
    below = text[text.index("call sites</th>") :].split("<tr>")[1]
    assert re.findall(r">(\w+)</th>", below)[: int(spanned)] == ["inlined", "direct", "indirect", "nop"]


@pytest.mark.parametrize(("backend", "told"), [("native", False), ("kvm", True)])
def test_what_is_told_of_unused_ops_is_what_a_terminal_tells(make: Make, backend: str, *, told: bool) -> None:
    own = {"save_fl": SiteUse("uncalled", 0, 1, 0, {}, "save_fl is yours, but")}
    assert ("save_fl is yours" in page(Comparison(grouped([make(backend, own=own)])))) == told


def test_every_table_can_be_scrolled_by_keys(comparison: Comparison) -> None:
    assert all(each.get("tabindex") == "0" for each in Reader(page(comparison)).scrolls)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [400, 1300])
def test_a_browser_clips_nothing(comparison: Comparison, tmp_path: Path, width: int) -> None:
    whole, picture = shown_widths(page(comparison), tmp_path, width)
    assert whole <= width
    assert 200 < picture < width


def test_colours_come_from_the_page(comparison: Comparison) -> None:
    text = page(comparison)
    drawings = text[text.index("<svg") : text.rindex("</svg>")]
    assert "#" not in drawings
    assert "var(--series-1)" in drawings
    for number in range(SERIES):
        assert f"--series-{number}:" in text


HOSTILE = "<script>alert('$x$')</script>&\"'"


def test_nothing_that_a_plugin_or_guest_says_becomes_markup(make: Make) -> None:
    fields = {
        "results": {HOSTILE: HOSTILE},
        "console": f"guest: {HOSTILE}",
        "reason": HOSTILE,
        "detail": HOSTILE,
        "counts": {"ops": {HOSTILE: 3}, "platform": PlatformCounts(traps={HOSTILE: 1})},
        "sites": {HOSTILE: {HOSTILE: 2}},
        "versions": {HOSTILE: HOSTILE},
    }
    cell = {"workload": HOSTILE}
    observations = [
        make(HOSTILE, HOSTILE, cell=cell, **fields),
        make("b", HOSTILE, cell=cell),
        make("c", HOSTILE, cell=cell, outcome=Outcome.DIED, **fields),
    ]
    result = Comparison(
        grouped(observations),
        skipped=(Skipped(HOSTILE, HOSTILE, HOSTILE),),
        plugin_errors=(PluginError(HOSTILE, distribution=HOSTILE),),
        command=HOSTILE,
    )
    reader = Reader(page(result))
    assert "script" not in reader.tags
    assert HOSTILE in reader.text


def test_a_comparison_of_nothing_has_a_page() -> None:
    assert "Nothing ran." in Reader(page(Comparison(()))).text


def test_plots_are_loaded_only_for_a_page() -> None:
    modules = "pvops_core.compare.text, pvops_core.runs.pool, pvops_core.compare.document"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
