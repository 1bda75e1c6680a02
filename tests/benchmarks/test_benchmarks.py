"""Every benchmark runs: at a size that measures nothing, so that none breaks unseen between two measurements."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import __main__ as table
from benchmarks import kernel_patching, measure, ops_boots, returning, studies
from benchmarks.boots import __main__ as boots
from benchmarks.boots.contestants import OUTCOME
from benchmarks.boots.engine_share import share
from benchmarks.boots.usage import Usage
from pvops_core.guests import builtin_guest
from pvops_core.ops import LAYOUTS
from pvops_core.testing.images import make_bzimage
from pvops_core.testing.kernels import SmallKernel

SMALL: Mapping[str, Mapping[str, object]] = {
    "hook_trip": {"CALLS": 4},
    "straight": {"ROUNDS": 4},
    "snapshots": {"TOUCHED": 2},
    "switching": {"SITES": 4, "VCPUS": 2},
    "livepatch": {"VCPUS": (2,), "ROUNDS": 2},
    "kernel_patching": {},
    "startup": {"TIMES": 1, "AIMS": {("--help",): 70.0}},
    "hook_tests": {"NUMBER": 2, "REPEATS": 1},
}
"""The table's modules, and their constants that make them long."""
OTHERS = {"__init__", "__main__", "growth", "measure", "ops_boots", "returning", "rig", "studies"}
"""Those that are no rows of it; ``growth`` has a test of its own."""


def once(act: Callable[[], object], *, repeats: int = 1, before: Callable[[], object] = lambda: None) -> float:
    """As ``measure.best``, of one."""
    before()
    act()
    return 1.0 / repeats


def test_none_is_left_out() -> None:
    there = {path.stem for path in Path(table.__file__).parent.glob("*.py")}
    assert there == OTHERS | set(SMALL)
    assert set(table.MODULES) == set(SMALL)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in {"startup", "hook_tests"}])
def test_a_row_is_measured(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured(name, monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["startup", "hook_tests"])
def test_a_row_of_whole_processes_is_measured(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured(name, monkeypatch, tmp_path)


def measured(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, layout = import_module(f"benchmarks.{name}"), LAYOUTS["6.1-64"]
    for constant, value in SMALL[name].items():
        assert hasattr(module, constant)
        monkeypatch.setattr(module, constant, value)
    if getattr(module, "best", None) is measure.best:
        monkeypatch.setattr(module, "best", once)
    kernel = SmallKernel(layout, types=range(len(layout.slots)))
    (tmp_path / "vmlinuz-0-cloud-amd64").write_bytes(make_bzimage(kernel.builder().build(), "xz", release="6.1.77"))
    monkeypatch.setattr(kernel_patching, "FOLDER", tmp_path)
    monkeypatch.delenv("PVOPS_KERNELS", raising=False)
    rows = list(module.run())
    assert rows
    for row in rows:
        assert row.value > 0
        assert len(table.row(row)) == 7


def test_where_a_boots_time_goes() -> None:
    found = share("native", builtin_guest("6.1-64"), 16 << 20)
    assert found["outcome"] == "poweroff"
    assert found["handlers"]
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("main", [boots.main, ops_boots.main])
def test_boots_are_compared(
    main: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"")

    def used(command: Sequence[str], _timeout: float) -> Usage:
        share = json.dumps({"engine_s": 1.0, "handlers_s": 0.5, "handlers": {"read_port": {"s": 0.5, "calls": 9}}})
        return Usage(2.0, 3.0, 1 << 28, share if "benchmarks.boots.engine_share" in command else f"{OUTCOME}\n")

    monkeypatch.setattr(sys.modules[main.__module__], "measure", used)
    monkeypatch.setattr(boots, "qemu", lambda _boot: None)
    main(kernel=kernel, initrd=kernel, backends="xen", rounds=2, to="-")
    assert "xen" in json.loads(capsys.readouterr().out)["boots"]


@pytest.mark.slow
def test_a_study_is_timed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "find_spec", lambda _name: None)
    studies.main(2, 2)
    said = capsys.readouterr().out
    assert "overhead" in said
    assert "| 4 | " in said
    assert "| not measured | " in said


@pytest.mark.kernel
@pytest.mark.slow
def test_a_kernel_returns(kernel_path: Callable[[str], Path], tmp_path: Path) -> None:
    kernel = kernel_path(boots.KERNEL)
    subject = returning.ReturningBoot(str(kernel), str(kernel.with_name(boots.INITRD)), "native", 1)
    found = returning.count(subject, 1, str(tmp_path), 1)
    assert found["loads"] == 1
    assert not found["different"]
