"""The table of what each age of kernel can do is what the readers and planners do with a small kernel of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvops_core.backends import load_backends
from pvops_core.errors import ImageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.altinstructions.whole import plan_alternatives
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.patching.sites import read_sites
from pvops_core.session import Session
from pvops_core.session.trace import Trace
from pvops_core.session.verify import PatchingCheck
from pvops_core.testing.kernels import SmallKernel
from tests.session.selfpatching import SelfPatching

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "real-kernels.md"
AGES = {"2.6.23 to 5.11": "2.6.23", "5.12 to 6.7": "6.1-64", "6.8 to 6.19": "6.12-64", "7.0 to 7.3": "7.2-64"}


def rows(begin: str = "## What each age") -> dict[str, list[str]]:
    section = PAGE.read_text(encoding="utf-8").partition(begin)[2].partition("\n\n|")[2].partition("\n\n")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines()]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines[2:]}


@pytest.mark.parametrize("begin", ["## What each age", "While it boots:"])
def test_every_age_has_its_row(begin: str) -> None:
    assert list(rows(begin)) == list(AGES)


@pytest.mark.parametrize("age", AGES)
def test_a_kernel_of_that_age_is_looked_into_as_its_row_says(age: str) -> None:
    verified, hooked, traced, _ = rows("While it boots:")[age]
    layout = LAYOUTS[AGES[age]]
    kernel = SelfPatching(layout, [layout.by_op("write_cr3").type])
    kernel.typed = not layout.record_size  # one site alone does not say where the table begins
    image = kernel.build(body=(0,))
    with Session(Kernel(image), (load_backends().backends["native"],), memory=32 << 20) as session:
        try:
            steps = PatchingCheck(session, [], ()).found().steps
            assert verified == ", ".join(f"`{step}`" for step in steps)
        except ImageError:
            assert verified == "no"
        trace = Trace(session)
        hook = session.hooks.install("write_cr3", lambda _cpu: 1)
        assert session.run().reason == "poweroff"
        assert (hooked == "yes") == (hook.calls == hook.replaced == 1)
        assert (traced == "yes") == (sum(share.count for share in trace.ops.values()) == 1)


@pytest.mark.parametrize("age", AGES)
def test_a_kernel_of_that_age_does_what_its_row_says(age: str) -> None:
    annotated, sites, patch, steps, alternatives, _ = rows()[age]
    layout = LAYOUTS[AGES[age]]
    image = load_image(SmallKernel(layout, types=range(len(layout.slots))).builder().build())
    assert ("parainstructions" in annotated) == (image.paravirt is not None)
    assert ("two tables" in annotated) == (len({slot.symbol for slot in layout.slots}) == 2)
    assert (sites == "yes") == (len(read_sites(image)) == len(layout.slots))
    try:
        plan = plan_kernel(read_kernel(image), [], 1)
    except ImageError:
        assert (patch, alternatives) == ("no", "no")
        return
    assert (patch, alternatives) == ("yes", "yes")
    assert steps == ", ".join(f"`{step}`" for step in plan.steps)
    assert len(plan_alternatives(plan, frozenset()).groups) == (0 if image.altinstructions is None else len(plan.sites))
