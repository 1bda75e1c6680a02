"""The table of ops, told from others."""

from __future__ import annotations

import pytest

from pvops_core.errors import ImageError, LayoutError
from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.sites import read_sites
from pvops_core.patching.tables import find_table
from pvops_core.testing.kernels import SmallKernel


@pytest.mark.parametrize("name", ["6.1-64", "6.1-32"])
def test_layout_is_told_from_the_table(name: str) -> None:
    layout = LAYOUTS[name]
    image = load_image(SmallKernel(layout, types=range(len(layout.slots))).builder().build())
    table = find_table(image, read_sites(image))
    assert table.layout is layout
    assert len(table.slots) == len(layout.slots)


def test_a_table_of_another_generation_is_not_taken_for_a_known_one() -> None:
    class Shifted(SmallKernel):
        @property
        def linked(self) -> list[str]:
            return [*super().linked[7:], *super().linked[:7]]

    layout = LAYOUTS["6.1-64"]
    image = load_image(Shifted(layout, types=range(len(layout.slots))).builder().build())
    with pytest.raises(LayoutError, match=r"\.parainstructions\[0\]\.instr: .* fits none of the layouts"):
        find_table(image, read_sites(image))


def test_a_larger_table_than_any_is_one_of_another_generation() -> None:
    """A type beyond all layouts is damage only where the other sites call through a table that is known."""

    class Strange(SmallKernel):
        @property
        def linked(self) -> list[str]:
            return [f"strange_{number}" for number in range(len(self.layout.slots))]

    layout = LAYOUTS["6.1-64"]
    image = load_image(Strange(layout, types=[0, 1, 250]).builder().build())
    with pytest.raises(LayoutError, match="fits none of the layouts"):
        find_table(image, read_sites(image))


def test_type_beyond_every_table_is_named() -> None:
    layout = LAYOUTS["6.1-64"]
    image = load_image(SmallKernel(layout, types=[0, 1, 250]).builder().build())
    with pytest.raises(ImageError) as caught:
        find_table(image, read_sites(image))
    assert caught.value.field == ".parainstructions[2].type"
