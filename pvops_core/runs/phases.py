"""The phases of a boot: what was counted between one point that the kernel came to and the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from msgspec.structs import asdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pvops_core.runs.observation import Observation

PHASES: Final[Mapping[str, tuple[str, str]]] = {
    "entry": ("", "start_kernel"),
    "setup": ("start_kernel", "alternatives"),
    "alternatives": ("alternatives", "patched"),
    "drivers": ("patched", "init"),
    "user": ("init", "power-off"),
}
"""Name of a phase -> the points at which it begins and ends; "" is the kernel's entry."""


@attrs.frozen
class PhaseColumn:
    """One amount that is told of every phase: its name in ``points``, its title, its unit as a cost has it."""

    key: str
    title: str
    unit: str = ""


PHASE_COLUMNS: Final = (
    PhaseColumn("virtual_ns", "virtual time", "ns"),
    PhaseColumn("wall_s", "wall time", "s"),
    PhaseColumn("traps", "traps"),
    PhaseColumn("hypercalls", "hypercalls"),
    PhaseColumn("page_table_updates", "page-table updates"),
    PhaseColumn("ports", "port accesses"),
)


def phases_of(observation: Observation) -> dict[str, dict[str, float]]:
    """Name of each phase that the boot went through -> what it took."""
    found: dict[str, dict[str, float]] = {}
    for name, (begin, end) in PHASES.items():
        first, last = observation.points.get(begin), observation.points.get(end)
        if last is not None and (not begin or first is not None):
            before = asdict(first) if first is not None else {}
            found[name] = {key: value - before.get(key, 0) for key, value in asdict(last).items()}
    return found


def phase_rows(
    observations: Iterable[Observation], wanted: Sequence[str]
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Phase, backend and amounts, phase by phase, of the phases wanted; all of them if none is named."""
    phases = {observation.cell.backend: phases_of(observation) for observation in observations}
    for name in PHASES:
        for backend, of_one in phases.items():
            if name in of_one and (not wanted or name in wanted):
                yield name, backend, of_one[name]
