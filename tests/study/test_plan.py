from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.study.errors import StudyError
from pvops_core.study.plan import StudyPlan, plan_study
from pvops_core.study.spec import StudySpec

if TYPE_CHECKING:
    from pvops_core.backends import Loaded

SMALL = {"backends": ("native", "xen"), "layouts": "6.1-64"}


@pytest.fixture
def plan(loaded: Loaded, tmp_path: Path) -> Any:  # noqa: ANN401 - a function of any keywords
    def made(**fields: Any) -> StudyPlan:  # noqa: ANN401
        return plan_study(StudySpec(**(SMALL | fields)), loaded, tmp_path)

    return made


def test_axes_are_multiplied(plan: Any) -> None:  # noqa: ANN401
    found = plan(cpus=(1, 2, 4), memory=(16, 64), seeds="0..1", repeats=2, cmdlines=("", "quiet"))
    assert len(found.cells) == 2 * 3 * 2 * 2 * 2 * 2
    assert len({cell.key for cell in found.cells}) == len(found.cells)
    places = {(c.axes.backend, c.axes.cpus, c.axes.memory, c.axes.seed, c.axes.repeat) for c in found.cells}
    assert places == set(itertools.product(("native", "xen"), (1, 2, 4), (16, 64), (0, 1), (1, 2)))
    for cell in found.cells:
        run = cell.request.cell
        assert (run.vcpus, run.memory, run.seed) == (cell.axes.cpus, cell.axes.memory << 20, cell.axes.seed)
    assert found.reference == "native"


def test_rules_choose(plan: Any) -> None:  # noqa: ANN401
    axes = {"cpus": "1..4", "seeds": "0..9"}
    excluded = plan(**axes, exclude=({"backend": "xen", "cpus": "3..4"}, {"seed": 9}))
    assert len(excluded.cells) == (4 + 2) * 9
    included = plan(**axes, include=({"backend": "na*", "seed": 0}, {"cpus": (2, 3), "seed": (4, 5)}))
    assert len(included.cells) == 4 + 2 * 2 * 2
    assert not plan(**axes, include={"backend": "none"}).cells


def test_what_does_not_go_together_is_told(plan: Any) -> None:  # noqa: ANN401
    found = plan(backends=("native", "lguest"))
    assert [cell.axes.backend for cell in found.cells] == ["native"]
    assert [(each.backend, each.reason) for each in found.skipped] == [("lguest", "lguest is no x86_64 machine")]


def test_a_setting_that_a_backend_has_not_makes_no_other_run(plan: Any) -> None:  # noqa: ANN401
    found = plan(settings=("", "event_channels=64"))
    keys = {name: {c.key for c in found.cells if c.axes.backend == name} for name in ("native", "xen")}
    assert (len(keys["native"]), len(keys["xen"])) == (1, 2)
    assert len(found.cells) == 4


def test_each_workload_of_a_kernel_is_a_cell(plan: Any, small_kernel: Path) -> None:  # noqa: ANN401
    """The built-in guest has none; how many rounds are made is in the key, however they are written."""
    kernels = ("builtin", str(small_kernel))
    found = plan(backends="native", kernels=kernels, workloads=("fork,mmap:7", "", "fork:9"))
    assert [(c.axes.guest, c.axes.workload, c.request.cell.workloads) for c in found.cells] == [
        ("builtin", "", ""),
        (small_kernel.name, "fork", "fork:100"),
        (small_kernel.name, "mmap:7", "mmap:7"),
        (small_kernel.name, "", ""),
        (small_kernel.name, "fork:9", "fork:9"),
    ]
    assert len({cell.key for cell in found.cells}) == len(found.cells)
    (again,) = plan(backends="native", kernels=str(small_kernel), workloads="fork:100").cells
    assert again.key == found.cells[1].key


@pytest.mark.parametrize(
    ("fields", "key", "words"),
    [
        ({"backends": "xne"}, "backends", "did you mean xen?"),
        ({"layouts": "6.1"}, "layouts", "no layout"),
        ({"kinds": "arm"}, "kinds", "no machine kind"),
        ({"cpus": "1-3"}, "cpus", "no range"),
        ({"cpus": 0}, "cpus", "not in the range"),
        ({"cpus": 129}, "cpus", "1<=x<=128"),
        ({"memory": (16, 0)}, "memory", "not in the range"),
        ({"seeds": "3..1"}, "seeds", "no range"),
        ({"seeds": "0..99999", "cpus": "1..3"}, "", "more than 100,000 cells"),
        ({"settings": "rtc"}, "settings", "is not NAME=VALUE"),
        ({"settings": "rct=1"}, "settings", "rct"),
        ({"measure": "time"}, "measure", "no measure"),
        ({"reference": "lguest"}, "reference", "no backend in the study"),
        ({"kernels": "none*"}, "kernels", "there is no none*"),
        ({"workloads": "frok"}, "workloads", "did you mean fork?"),
        ({"workloads": ("fork", "mmap:0")}, "workloads", "rounds"),
        ({"workloads": "fork"}, "workloads", "names none"),
        ({"workloads": "fork", "kernels": "builtin"}, "workloads", "names none"),
        ({"exclude": {"vcpus": 1}}, "exclude[0].vcpus", "no axis"),
        ({"include": {"cpus": "1-2"}}, "include", "no range"),
    ],
)
def test_what_is_wrong_names_its_key(plan: Any, fields: dict[str, Any], key: str, words: str) -> None:  # noqa: ANN401
    with pytest.raises(StudyError) as told:
        plan(**fields)
    assert told.value.key == key
    assert words in told.value.message
