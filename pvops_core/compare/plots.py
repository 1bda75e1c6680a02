"""Bar plots as SVG to be put into a page: colours and font are the page's, by CSS variables.

Matplotlib wants literal colours, so each CSS variable is drawn in a colour of its own that stands for it and is
replaced in the text. The same data gives the same bytes.
"""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING, Any

import attrs

from pvops_core.cachefolder import cache_folder

if (_CACHE := cache_folder(os.environ)) is not None:  # where its cache of fonts goes: it makes folders of its own else
    os.environ.setdefault("MPLCONFIGDIR", str(_CACHE / "matplotlib"))
import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

SERIES = 8
"""Number of series colours that the page defines: ``--series-0`` and so on."""

WIDTH_INCHES = 6.0
_BAR_INCHES = 0.2
STYLE: dict[Any, Any] = {  # its keys have a type of their own, which names every setting
    # Text stays text, in the page's own font.
    "svg.fonttype": "none",
    # Ids are hashes, salted at random unless a salt is given.
    "svg.hashsalt": "pvops",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.parse_math": False,
}
# The date would make each file another.
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_ROOM = 0.035
_LETTERS = 64
"""Of a row's name and what stands at its bar's end: more leave the bars no room."""
INK = "#0a0b01"
PAPER = "#0a0b02"
_ON_PARTS = (PAPER, PAPER, INK, INK) * 2
_VARIABLES = {INK: "var(--ink)", PAPER: "var(--page)"} | {
    f"#0a{mark}{n:02x}": f"var(--{name}-{n})"
    for mark, name in (("0c", "series"), ("0d", "part"))
    for n in range(SERIES)
}


@attrs.frozen
class Bar:
    """One bar.

    Attributes:
        row: label of its row.
        series: number of its series, which gives the colour.
        value: length.
        text: written at its end.
    """

    row: str
    series: int
    value: float
    text: str


@mpl.rc_context(STYLE)
def grouped_bars(title: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars, those of one row beside each other, rows apart; an ``svg`` element."""
    rows = _rows(bars)
    places = _places(rows)
    figure, axes = _figure(len(bars) + 0.8 * len(rows))
    for bar in bars:
        place = places[bar.row] + rows[bar.row].index(bar)
        drawn = axes.barh(place, bar.value, height=0.82, color=colour(bar.series), clip_on=False)
        axes.bar_label(drawn, [bar.text], padding=3, color=INK)
    middles = [places[row] + (len(members) - 1) / 2 for row, members in rows.items()]
    axes.set_yticks(middles, list(rows), color=INK)
    return svg_of(figure, title)


@mpl.rc_context(STYLE)
def stacked_bars(title: str, rows: Mapping[str, Sequence[int]]) -> str:
    """One horizontal bar for each row, its parts one after the other in colours that are no series'.

    Each part has its number in it; where one is too narrow for that, the sum at the bar's end names all, if they are
    few.
    """
    longest = max((sum(parts) for parts in rows.values()), default=0) or 1
    figure, axes = _figure(1.4 * len(rows))
    room = _LETTERS - max(map(len, rows), default=0)
    for place, parts in enumerate(rows.values()):
        left, crowded = 0, False
        for series, part in enumerate(parts):
            if part:
                axes.barh(place, part, left=left, height=0.7, color=part_colour(series), clip_on=False)
                crowded |= not (fits := part / longest > _ROOM * len(f"{part:,}"))
                if fits:
                    axes.text(
                        left + part / 2, place, f"{part:,}", ha="center", va="center", color=_ON_PARTS[series % SERIES]
                    )
            left += part
        whole = f"{left:,}"
        terms = f"{whole} = {' + '.join(f'{part:,}' for part in parts if part)}"
        told = terms if crowded and sum(map(bool, parts)) > 1 and len(terms) <= room else whole
        axes.annotate(told, (left, place), (3, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(range(len(rows)), list(rows), color=INK)
    return svg_of(figure, title)


def _rows(bars: Sequence[Bar]) -> dict[str, list[Bar]]:
    rows: dict[str, list[Bar]] = {}
    for bar in bars:
        rows.setdefault(bar.row, []).append(bar)
    return rows


def _places(rows: Mapping[str, Sequence[Bar]]) -> dict[str, float]:
    """Where each row's first bar is drawn, in bar widths."""
    places: dict[str, float] = {}
    place = 0.0
    for row, members in rows.items():
        places[row] = place
        place += len(members) + 0.6
    return places


def _figure(bars: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, _BAR_INCHES * bars + 0.1), layout="constrained")
    axes = figure.add_subplot()
    axes.invert_yaxis()
    axes.margins(x=0.16, y=0.02)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(INK)
    axes.xaxis.set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def part_colour(part: int) -> str:
    """What stands for the colour of a part of a bar."""
    return f"#0a0d{part % SERIES:02x}"


def colour(series: int) -> str:
    """What stands for the colour of a series."""
    return f"#0a0c{series % SERIES:02x}"


def svg_of(figure: Figure, title: str) -> str:
    """The figure as an ``svg`` element in the page's colours."""
    out = io.StringIO()
    figure.patch.set_visible(False)
    figure.axes[0].patch.set_visible(False)
    figure.savefig(out, format="svg", metadata=_NO_METADATA)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)  # would style the whole page
    svg = re.sub(r' id="[^"]*"', "", svg)  # several plots share a page; nothing refers to these
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
