"""The axes of a study: what tells one cell from another, in the words of its file, its table and its rules."""

from __future__ import annotations

from pvops_core.records import Count, JsonRecord, Positive


class Axes(JsonRecord, frozen=True):
    """Where a cell stands on each axis.

    Attributes:
        guest: `builtin`, or the kernel's file: its name, or its path where two have one name.
        layout: Layout of the built-in guest; empty for a kernel.
        kind: Machine kind.
        memory: Guest memory in MiB.
        cpus: Virtual CPUs.
        cmdline: Command line, without the name of the platform's console.
        workload: Workload whose rounds a kernel's first process makes; empty for none.
        ops: Ops that the backend's own hooks serve in Python; empty for none.
        settings: Settings of platforms, as the study gives them.
        seed: Seed of the run.
        repeat: Number of the repeat, from 1.
        backend: Backend.
    """

    guest: str
    layout: str
    kind: str
    memory: Count
    cpus: Positive
    cmdline: str
    workload: str
    ops: str
    settings: str
    seed: Count
    repeat: Positive
    backend: str


AXES = Axes.__struct_fields__
"""Names of the axes, in the order in which cells are run: the last changes first."""
SPREAD = ("seed", "repeat")
"""Axes over which a median is taken."""
