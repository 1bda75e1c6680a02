"""A comparison's table as a picture: one SVG file that needs no fonts from elsewhere."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from rich.console import Console

from pvops_core.compare.columns import repeatable
from pvops_core.compare.text import print_comparison

if TYPE_CHECKING:
    from pvops_core.compare.comparison import Comparison

WIDTH: Final = 132
"""Characters in a line of the picture."""

FORMAT: Final = """\
<svg class="pvops" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def picture(comparison: Comparison, title: str) -> str:
    """The table as SVG, the same in every run with one seed: wall time is left out.

    Args:
        comparison: what to show.
        title: stands above it.
    """
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    print_comparison(comparison, console, repeatable(comparison.observations))
    return console.export_svg(title=title, code_format=FORMAT, unique_id="pvops")
