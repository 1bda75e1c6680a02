"""The command that makes a cell's run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.runs.again import again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.runs.cell import Cell
    from pvops_core.study.axes import Axes


def replay(cell: Cell, axes: Axes, plugins: Sequence[str] = (), until: str = "", stop_at: str = "") -> str:
    """One line for a shell."""
    common = {
        "backend": cell.backend,
        "cmdline": cell.workload,
        "workload": cell.workloads,
        "cpus": cell.vcpus,
        "seed": cell.seed,
        "memory": cell.memory >> 20,
        "set": tuple(f"{name}={value}" for name, value in cell.options.items()),
        "plugin": tuple(plugins),
    }
    if not cell.group.of_kernel:
        return again("run", {"layout": cell.layout} | common)
    kernel = {"initrd": cell.initrd, "until": until, "stop-at": stop_at, "ops": axes.ops}
    return again("boot", kernel | common | {"cmdline": cell.cmdline}, cell.guest)
