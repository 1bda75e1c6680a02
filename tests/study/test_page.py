from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.runs.observation import Observation, Outcome
from pvops_core.study.page import page
from pvops_core.study.plots import shortened
from pvops_core.study.report import told
from pvops_core.study.store import PlannedRow, Store
from tests.pagereader import BROWSER, Reader, shown_widths

if TYPE_CHECKING:
    from pvops_core.study.rows import Row


@pytest.fixture
def full(store: Store, make_row: Callable[..., Row], observe: Callable[..., Observation]) -> Store:
    """Two backends over CPUs and seeds, a result that differs, a crash, an outlier, and names to be escaped."""
    cells = []
    for cpus in (1, 2, 4):
        for seed in range(6):
            for backend in ("native", "<xen>"):
                fields = {"instructions": 10**6 * cpus + (10**6 if seed == 5 else 0)}
                if (cpus, seed, backend) == (2, 1, "<xen>"):
                    fields |= {"console": "guest: ill & worse\n"}
                if (cpus, seed, backend) == (4, 1, "native"):
                    fields |= {"outcome": Outcome.CRASH, "reason": "<b>triple fault</b>"}
                row = make_row(backend, seed=seed, cpus=cpus, **fields)
                store.add(row.measured, observe(backend, seed=seed, **fields))
                cells.append(PlannedRow(row.axes, "", "", row.measured.key))
    store.note(cells, {"name": "sizes & more", "reference": "native", "text": "cpus = [1, 2, 4]"})
    return store


def test_a_page_says_it_all(full: Store) -> None:
    found = told(full)
    reader = Reader(page(found))
    for words in (
        found.answers.verdict,
        "sizes & more",
        "<xen>",
        "native: crash: <b>triple fault</b>".removeprefix("native: "),
        "another result than native",
        "usually 1,000,000",
        "instructions over cpus",
        "write_cr3",
        "pvops run --layout 6.1-64 --backend",
        "cpus = [1, 2, 4]",
        "event_log_sha256",
    ):
        assert words in reader.text, words
    assert reader.text.index(found.answers.verdict) < reader.text.index("Medians")
    assert "svg" in reader.tags


def test_a_page_needs_nothing_from_outside_and_the_same_data_give_the_same_bytes(full: Store) -> None:
    text = page(told(full))
    reader = Reader(text)
    assert reader.tags & {"script", "link", "iframe", "img", "object", "embed"} == set()
    targets = {value for name, value in reader.attributes if name in {"src", "href", "xlink:href"}}
    assert all(target and target.startswith("#") for target in targets)
    assert text == page(told(full))
    assert len(text) < 3 << 20


def test_what_scrolls_is_reached_by_keyboard(full: Store) -> None:
    scrolls = Reader(page(told(full))).scrolls
    assert len(scrolls) > 3
    assert all(each.get("tabindex") == "0" and each.get("aria-label") for each in scrolls)


def test_a_study_of_nothing_has_a_page(store: Store) -> None:
    store.note([], {})
    assert "Nothing ran." in Reader(page(told(store))).text


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["vmlinuz-6.1.0-56-amd64", "vmlinuz-7.2.13-1-amd64"], ["6.1.0-56", "7.2.13-1"]),
        (["6.1-64", "2.6.24"], ["6.1-64", "2.6.24"]),
        (["6.1-64", "6.12-64"], ["6.1", "6.12"]),
        (["a-b", "a-b-c"], ["b", "b-c"]),
        (["", "quiet"], ["-", "quiet"]),
        (["a-b"], ["a-b"]),
    ],
)
def test_names_are_shortened_to_what_differs(names: list[str], short: list[str]) -> None:
    assert shortened(names) == short


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [400, 1300])
def test_a_browser_clips_nothing(full: Store, tmp_path: Path, width: int) -> None:
    whole, picture = shown_widths(page(told(full)), tmp_path, width)
    assert whole <= width
    assert 200 < picture < width
