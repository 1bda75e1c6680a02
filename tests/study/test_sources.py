from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.wire import Request
from pvops_core.study.axes import Axes
from pvops_core.study.errors import StudyError
from pvops_core.study.plan import Planned
from pvops_core.study.sources import SourceWatch

if TYPE_CHECKING:
    from pvops_core.backends import Loaded


def test_a_kernel_that_changes_meanwhile_is_told(loaded: Loaded, tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"kernel")
    axes = Axes("vmlinuz", "", "x86_64", 256, 1, "", "", "", "", 0, 1, "native")
    cell = Cell("native", "", MachineKind.X86_64, guest=str(kernel))
    watch = SourceWatch([Planned("00", axes, Request(cell))], loaded.backends)
    watch.check()
    os.utime(kernel, ns=(0, 1))
    with pytest.raises(StudyError, match="vmlinuz: changed while the study ran"):
        watch.check()
    kernel.unlink()
    with pytest.raises(StudyError, match="changed"):
        watch.check()
