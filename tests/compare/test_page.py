from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from pvops_core.compare.comparison import Comparison, grouped
from pvops_core.compare.page import page
from pvops_core.compare.plots import SERIES
from pvops_core.errors import PluginError
from pvops_core.runs.observation import Observation, Outcome, PlatformCounts
from pvops_core.runs.plan import Skipped
from tests.pagereader import Reader

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
