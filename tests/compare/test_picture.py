from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

from pvops_core.compare.comparison import Comparison, grouped
from pvops_core.compare.picture import picture
from pvops_core.runs.observation import Observation

Make = Callable[..., Observation]


def words(svg: str) -> str:
    return " ".join(text.replace("\xa0", " ") for text in ET.fromstring(svg).itertext())


def test_it_shows_the_table(make: Make) -> None:
    svg = picture(Comparison(grouped([make(), make("xen")])), "pvops compare <&>")
    shown = words(svg)
    assert "pvops compare <&>" in shown
    assert "1,234,567" in shown
    assert "Results are equal in the one group, over 2 runs." in shown


def test_wall_time_does_not_change_it(make: Make) -> None:
    slow, fast = (picture(Comparison(grouped([make(wall_s=wall)])), "title") for wall in (9.0, 0.1))
    assert slow == fast
    assert "wall" not in words(slow)


def test_it_needs_nothing_from_elsewhere(make: Make) -> None:
    svg = picture(Comparison(grouped([make()])), "title")
    assert svg.count("http") == 1  # its own namespace
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg
