"""Lines over an axis, with their spread, as SVG to be put into a page; the rest is as of a comparison's bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import matplotlib as mpl
from matplotlib.figure import Figure

from pvops_core.compare.plots import INK, STYLE, WIDTH_INCHES, colour, svg_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pvops_core.study.statistics import Spread

_HEIGHT_INCHES = 2.6
_THIN = 1.3
_MOST_LETTERS = 60


@attrs.frozen
class Line:
    """One backend over an axis.

    Attributes:
        series: number of its colour.
        points: value of the axis, and the spread there.
    """

    series: int
    points: Sequence[tuple[str | int, Spread]]


@mpl.rc_context(STYLE)
def lines(title: str, axis: str, drawn: Sequence[Line], text: Callable[[float], str]) -> str:
    """Medians over an axis, from least to most shaded; numbers are places on it, names stand side by side.

    Args:
        title: read out in place of the picture.
        axis: written below.
        drawn: the lines.
        text: how a value is written.
    """
    values = list(dict.fromkeys(value for line in drawn for value, _spread in line.points))
    numeric = all(isinstance(value, int) for value in values)
    places = {value: float(value) if numeric else float(number) for number, value in enumerate(values)}
    figure = Figure(figsize=(WIDTH_INCHES, _HEIGHT_INCHES), layout="constrained")
    axes = figure.add_subplot()
    for number, line in enumerate(drawn):
        x = [places[value] for value, _spread in line.points]
        spreads = [spread for _value, spread in line.points]
        edge = [spread.low for spread in spreads], [spread.high for spread in reversed(spreads)]
        axes.fill(x + x[::-1], edge[0] + edge[1], color=colour(line.series), alpha=0.2, linewidth=0)
        width = _THIN + _THIN * (len(drawn) - 1 - number)  # one that lies below another is seen on both sides of it
        axes.plot(x, [spread.median for spread in spreads], color=colour(line.series), linewidth=width)
    axes.set_xticks(list(places.values()), shortened([str(value) for value in values]), color=INK)
    axes.set_xlabel(axis, color=INK)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _place: text(value))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, length=0)
    axes.grid(visible=True, color=INK, alpha=0.12, linewidth=0.5)
    if not numeric and sum(map(len, shortened([str(value) for value in values]))) > _MOST_LETTERS:
        axes.tick_params(axis="x", labelrotation=20)
    return svg_of(figure, title)


def shortened(names: Sequence[str]) -> list[str]:
    """Names without the words, parted by ``-``, that all begin and end with; a dash for nothing."""
    words = [name.split("-") for name in names]
    for end in (0, -1):
        while len(words) > 1 and all(len(each) > 1 for each in words) and len({each[end] for each in words}) == 1:
            for each in words:
                each.pop(end)
    return ["-".join(each) or "-" for each in words]
