"""What will be run: which cells, and which combinations are left out since they do not go together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
from msgspec.structs import replace

from pvops_core.backends import chain
from pvops_core.backends.chains import platform_owner
from pvops_core.errors import UsageError, unknown
from pvops_core.guests import Kernel
from pvops_core.kinds import MachineKind, will_do
from pvops_core.records import JsonRecord
from pvops_core.runs.cell import Cell
from pvops_core.session import hosted

if TYPE_CHECKING:
    from pvops_core.backends import Backend

Kinds = Mapping[str, Collection[MachineKind]]
"""Backend name -> machine kinds that it can be."""


class Skipped(JsonRecord, frozen=True):
    """A backend and layout that do not go together.

    Attributes:
        backend: The backend.
        layout: The layout; empty for a kernel.
        reason: Why they do not go together.
    """

    backend: str
    layout: str
    reason: str


@attrs.frozen
class RunPlan:
    """Cells to run, group by group, and what was left out."""

    cells: tuple[Cell, ...]
    skipped: tuple[Skipped, ...]


@attrs.frozen
class Workload:
    """What all cells of a comparison have in common.

    Attributes:
        cmdline: the guest's command line.
        seed: of every run.
        vcpus: number of virtual CPUs.
        memory: guest memory in bytes.
        settings: for each backend's name what is chosen of its platform, name to text.
        workloads: those whose rounds a kernel's first process makes; empty for none.
    """

    cmdline: str
    seed: int
    vcpus: int
    memory: int
    settings: Mapping[str, dict[str, str]] = attrs.field(factory=dict)
    workloads: str = ""

    def cell(self, backend: str, layout: str, kind: MachineKind) -> Cell:
        """One backend's run of it."""
        return Cell(
            backend,
            layout,
            kind,
            workload=self.cmdline,
            seed=self.seed,
            vcpus=self.vcpus,
            memory=self.memory,
            options=self.settings.get(backend, {}),
            workloads=self.workloads,
        )


@attrs.frozen
class Files:
    """A real kernel to be booted.

    Attributes:
        kernel: path of its image.
        initrd: path of its initial ramdisk; empty for none.
        kind: the machine it needs.
    """

    kernel: str
    initrd: str
    kind: MachineKind


def plan_builtin(backends: Kinds, layouts: Mapping[str, MachineKind], workload: Workload) -> RunPlan:
    """The built-in guest in each layout on each backend that can be its kind of machine."""
    cells: list[Cell] = []
    skipped: list[Skipped] = []
    for layout, kind in layouts.items():
        for backend, kinds in backends.items():
            if kind in kinds:
                cells.append(workload.cell(backend, layout, kind))
            else:
                skipped.append(Skipped(backend, layout, f"{backend} is no {kind.value} machine"))
    return RunPlan(tuple(cells), tuple(skipped))


def plan_kernel(
    names: Sequence[str], backends: Mapping[str, Backend], files: Files, workload: Workload, *, count: bool = False
) -> RunPlan:
    """A real kernel on each named backend that can boot it, each told of its own console.

    Args:
        names: the backends wanted.
        backends: all that there are.
        files: what is booted.
        workload: command line, seed, vCPUs and memory.
        count: count instructions.
    """
    cells: list[Cell] = []
    skipped: list[Skipped] = []
    for name in names:
        try:
            platform, _ = hosted(Kernel.boot_protocol, will_do(files.kind), chain(backends[name], backends))
        except UsageError as reason:
            skipped.append(Skipped(name, "", str(reason)))
            continue
        cell = workload.cell(name, "", files.kind)
        cells.append(
            replace(
                cell,
                guest=files.kernel,
                initrd=files.initrd,
                console_name=platform.console_name,
                count_instructions=count,
            )
        )
    return RunPlan(tuple(cells), tuple(skipped))


def machine_kinds(backend: Backend, backends: Mapping[str, Backend]) -> frozenset[MachineKind]:
    """The kinds that a backend can be: those of the platform in force, less those that it does not name itself.

    Raises:
        UsageError: a base is not there.
    """
    owner = platform_owner(chain(backend, backends))
    return owner.kinds & backend.kinds if backend.kinds else owner.kinds


def bases_first(backends: Mapping[str, Backend]) -> list[str]:
    """Backends' names, those first that are based on none: they are what the others are measured by."""
    return sorted(backends, key=lambda name: (len(chain(backends[name], backends)), name))


def choose(what: str, wanted: Sequence[str], there: Sequence[str]) -> list[str]:
    """The wanted ones of those there are, each once, or all if none is named.

    Args:
        what: what they are, for the message.
        wanted: names asked for.
        there: names to choose from.

    Raises:
        UsageError: a name that is not there.
    """
    for name in wanted:
        if name not in there:
            raise unknown(what, name, there)
    return list(dict.fromkeys(wanted or there))
