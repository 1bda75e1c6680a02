"""What may differ between backends and is worth knowing: the costs, in the order of every table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import attrs

if TYPE_CHECKING:
    from pvops_core.runs.counts import Counts
    from pvops_core.runs.observation import Observation
    from pvops_core.runs.rounds import Rounds


class Charged(Protocol):
    """A run, or a part of one."""

    @property
    def counts(self) -> Counts:
        """Counters."""

    @property
    def instructions(self) -> int:
        """Guest instructions executed."""

    @property
    def virtual_ns(self) -> int:
        """Virtual time, in nanoseconds."""

    @property
    def wall_s(self) -> float:
        """Wall time, in seconds."""


C_contra = TypeVar("C_contra", contravariant=True)


@attrs.frozen
class Cost(Generic[C_contra]):
    """One number that a run is charged, or a part of one.

    Attributes:
        key: its name in JSON.
        title: its name in tables.
        explanation: one line on what is counted.
        of: reads it from what was counted of a run, or of a part of one.
        unit: ``""`` for a count, ``ns`` or ``s``.
    """

    key: str
    title: str
    explanation: str
    of: Callable[[C_contra], float]
    unit: str = ""


def _sum(counts: Mapping[str, int]) -> int:
    return sum(counts.values())


NO_MEASURE = (
    "Op calls are what was not inlined; virtual time is mostly waiting, for timer ticks and calibrations by them. "
    "Neither measures a backend: compare traps, hypercalls and instructions."
)
"""What every report with op calls and virtual times says."""
_LAST = ("instructions", "virtual_ns", "wall_s")

COSTS: tuple[Cost[Charged], ...] = (
    Cost(
        "op_calls",
        "op calls",
        "calls at sites that are not inlined, each served by a hook",
        lambda o: _sum(o.counts.ops),
    ),
    Cost("own_calls", "own", "those of them that the backend's own hooks served", lambda o: _sum(o.counts.own)),
    Cost(
        "traps",
        "traps",
        "times that the guest trapped into its platform",
        lambda o: _sum(o.counts.platform.traps),
    ),
    Cost(
        "hypercalls",
        "hypercalls",
        "requests made to the hypervisor",
        lambda o: _sum(o.counts.platform.hypercalls),
    ),
    Cost(
        "page_table_updates",
        "page-table updates",
        "page-table entries that the platform wrote or checked for the guest",
        lambda o: o.counts.platform.page_table_updates,
    ),
    Cost(
        "tlb_flushes",
        "TLB flushes",
        "TLB flushes made by hooks and platform; those of inlined code are not seen",
        lambda o: o.counts.machine.get("tlb_flushes", 0),
    ),
    Cost("instructions", "instructions", "guest instructions executed", lambda o: o.instructions),
    Cost(
        "virtual_ns",
        "virtual time",
        "code executed and, mostly, waiting for timers; no measure of a backend",
        lambda o: o.virtual_ns,
        "ns",
    ),
    Cost("wall_s", "wall time", "what the run took here, which says little", lambda o: o.wall_s, "s"),
)


BOOT_COSTS: tuple[Cost[Charged], ...] = (
    *(cost for cost in COSTS if cost.key not in _LAST),
    Cost("ports", "port accesses", "reads and writes of I/O ports", lambda o: port_accesses(o.counts.machine)),
    Cost("msrs", "MSR accesses", "rdmsr and wrmsr, where they are seen", lambda o: _accesses(o.counts.machine, "msr")),
    *(cost for cost in COSTS if cost.key in _LAST),
)
"""What is worth knowing of a real kernel's boot."""

_COUNTED_ON_DEMAND = {
    "op_calls": lambda o: bool(o.counts.ops),
    "own_calls": lambda o: bool(o.counts.own),
    "instructions": lambda o: bool(o.instructions),
    "msrs": lambda o: "msr_reads" in o.counts.machine,
}


def port_accesses(counts: Mapping[str, int]) -> int:
    """Reads and writes of I/O ports in a machine's counts."""
    return _accesses(counts, "port")


def _accesses(counts: Mapping[str, int], kind: str) -> int:
    return counts.get(f"{kind}_reads", 0) + counts.get(f"{kind}_writes", 0)


def known(cost: Cost[Observation], observation: Observation) -> bool:
    """Whether a run was asked to count this, and could."""
    if not observation.measured:
        return False
    return not observation.cell.group.of_kernel or _COUNTED_ON_DEMAND.get(cost.key, lambda _: True)(observation)


def per_round(cost: Cost[Charged], rounds: Rounds) -> str:
    """What one round of a workload was charged, for a person."""
    return quantity(cost.of(rounds.total) / rounds.rounds, cost.unit)


_FEW = 100
"""Counts below this are told with two decimals where they are no whole numbers."""


def quantity(value: float, unit: str = "") -> str:
    """A number for a person: counts with thousands separated, times in the unit that suits them."""
    if unit == "ns":
        return _duration(value)
    if unit == "s":
        return _duration(value * 1e9)
    return f"{value:,.{2 if value < _FEW and value % 1 else 0}f}"


def _duration(nanoseconds: float) -> str:
    for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:,.{max(0, 2 - len(str(int(value))) + 1)}f} {name}"
    return f"{nanoseconds:.0f} ns"
