"""One cell's result as a row: what is in the database, the exports and the JSON. These records' fields are columns."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec.structs import replace

from pvops_core.compare.differences import result_lines
from pvops_core.records import FLAT, Count, JsonRecord, MaybeSha256, Seconds, Sha256, line, read
from pvops_core.runs.costs import BOOT_COSTS, Charged, Cost, known
from pvops_core.runs.observation import SITE_FORMS, Observation, Outcome
from pvops_core.study.axes import Axes

if TYPE_CHECKING:
    from collections.abc import Iterator


def _of_form(form: str) -> Cost[Observation]:
    def number(observation: Observation) -> int:
        return observation.sites_by_form.get(form, 0)

    return Cost(form, f"{form} sites", f"call sites that are {form} at the end", number)


_SITES: tuple[Cost[Observation], ...] = (
    Cost("sites", "call sites", "call sites of ops", lambda o: sum(o.sites_by_form.values())),
    *map(_of_form, SITE_FORMS),
)


def _of_round(cost: Cost[Charged]) -> Cost[Observation]:
    def number(observation: Observation) -> float:
        (rounds,) = observation.rounds.values()
        return round(cost.of(rounds.total) / rounds.rounds, _DECIMALS)

    return Cost(f"round_{cost.key}", f"{cost.title} a round", f"{cost.explanation}, in one round", number)


_DECIMALS: Final = 6
_OF_ROUNDS: tuple[Cost[Observation], ...] = tuple(
    _of_round(cost) for cost in BOOT_COSTS if cost.key not in {"ports", "msrs", "virtual_ns", "wall_s"}
)
ROUND_COSTS: Final = {cost.key: cost.key.removeprefix("round_") for cost in _OF_ROUNDS}
"""Of a workload, which is all that its boot is made for: the column, and that of the cost it is of."""
_ALL: tuple[Cost[Observation], ...] = (*_OF_ROUNDS, *BOOT_COSTS[:-2], *_SITES, *BOOT_COSTS[-2:])
COSTS: Final = {cost.key: cost for cost in _ALL}
"""What is worth knowing of a run, by column."""


class Measured(JsonRecord, frozen=True):
    """What was observed of one run; null is what was not counted. All but the last three depend on the key alone.

    Attributes:
        key: Hash over all that determines the run.
        outcome: How the run ended.
        reason: Why, in a line.
        results_sha256: Hash over what must be equal on every backend: end, words of the guest's report, its lines.
        round_op_calls: Of a workload: `op_calls` in one round, the mean over its rounds.
        round_own_calls: The same of `own_calls`.
        round_traps: Of `traps`.
        round_hypercalls: Of `hypercalls`.
        round_page_table_updates: Of `page_table_updates`.
        round_tlb_flushes: Of `tlb_flushes`.
        round_instructions: Of `instructions`.
        op_calls: Calls that a backend's hook served.
        own_calls: Those of them that the backend's own hooks served.
        traps: Times that the guest trapped into its platform.
        hypercalls: Requests made to the hypervisor.
        page_table_updates: Page-table entries that the platform wrote or checked for the guest.
        tlb_flushes: TLB flushes made by hooks and platform.
        ports: Reads and writes of I/O ports.
        msrs: rdmsr and wrmsr.
        instructions: Guest instructions executed.
        virtual_ns: Virtual time at the end.
        sites: Call sites of ops.
        inlined: Call sites that are inlined code at the end.
        direct: Those that are direct calls.
        indirect: Those that are calls through the table.
        nop: Those that do nothing.
        vcpus_started: Virtual CPUs that the guest started.
        event_log_sha256: Hash of all that happened, in order.
        text_sha256: Hash of the guest's text at the end.
        wall_s: Wall time in seconds, without start-up.
        host: Name of the machine that ran it.
        ended: When it ended, in seconds since 1970.
    """

    key: Sha256
    outcome: Outcome
    reason: str
    results_sha256: MaybeSha256
    round_op_calls: float | None
    round_own_calls: float | None
    round_traps: float | None
    round_hypercalls: float | None
    round_page_table_updates: float | None
    round_tlb_flushes: float | None
    round_instructions: float | None
    op_calls: Count | None
    own_calls: Count | None
    traps: Count | None
    hypercalls: Count | None
    page_table_updates: Count | None
    tlb_flushes: Count | None
    ports: Count | None
    msrs: Count | None
    instructions: Count | None
    virtual_ns: Count | None
    sites: Count | None
    inlined: Count | None
    direct: Count | None
    indirect: Count | None
    nop: Count | None
    vcpus_started: Count | None
    event_log_sha256: MaybeSha256
    text_sha256: MaybeSha256
    wall_s: Seconds
    host: str
    ended: Count

    @classmethod
    def of(cls, key: str, observation: Observation, host: str, ended: int) -> Measured:
        """The row of an observation."""
        costs: dict[str, Any]  # whole numbers, but of rounds
        costs = {name: cost.of(observation) if _known(cost, observation) else None for name, cost in COSTS.items()}
        costs.pop("wall_s")
        if not observation.sites:
            costs |= dict.fromkeys(cost.key for cost in _SITES)
        return cls(
            key=key,
            outcome=observation.outcome,
            reason=observation.reason,
            results_sha256=results_sha256(observation),
            **costs,
            vcpus_started=observation.vcpus_started if observation.measured else None,
            event_log_sha256=observation.event_log_sha256,
            text_sha256=observation.text_sha256,
            wall_s=round(observation.wall_s, 6),
            host=host,
            ended=ended,
        )


def _known(cost: Cost[Observation], observation: Observation) -> bool:
    """Whether it was counted; what a round takes, where a workload came to its end."""
    base = COSTS[ROUND_COSTS.get(cost.key, cost.key)]
    return known(base, observation) and (base is cost or len(observation.rounds) == 1)


LOST: Final = frozenset({Outcome.TIMEOUT, Outcome.DIED, Outcome.MEMORY, Outcome.GARBAGE, Outcome.ERROR})
"""Ends that may not come again: another machine, or another day, may see the run come to its own end."""
HERE: Final = ("wall_s", "host", "ended")
"""Columns that say where and how fast it was run, and are in no comparison but of wall time."""


class Row(JsonRecord, frozen=True):
    """One cell of a study, and what was observed of its run.

    Attributes:
        axes: Where it stands.
        guest_sha256: SHA-256 of the kernel's file; empty for the built-in guest.
        initrd_sha256: SHA-256 of the initial ramdisk's file; empty for none.
        measured: What was observed.
    """

    axes: Annotated[Axes, FLAT]
    guest_sha256: MaybeSha256
    initrd_sha256: MaybeSha256
    measured: Annotated[Measured, FLAT]


def columns(kind: type[JsonRecord]) -> Iterator[tuple[str, str]]:
    """Name and SQLite's type of each column that a record makes."""
    for each in msgspec.structs.fields(kind):
        inner = getattr(each.type, "__origin__", each.type)
        if isinstance(inner, type) and issubclass(inner, JsonRecord):
            yield from columns(inner)
            continue
        number = "REAL" if "float" in str(each.type) else "INTEGER" if "int" in str(each.type) else "TEXT"
        yield each.encode_name, number


def results_sha256(observation: Observation) -> str:
    """Hash over what must be equal on every backend; empty for a guest that did not come to its own end."""
    if not observation.outcome.finished:
        return ""
    end = Outcome.POWEROFF if observation.outcome is Outcome.HALTED else observation.outcome
    said = [end.value, sorted(observation.results.items()), result_lines(observation.console)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def kept_text(observation: Observation) -> str:
    """What is kept of a whole observation: all but the bytes of each site, which are many."""
    return line(replace(observation, site_codes={})).decode()


def kept_observation(text: str) -> Observation:
    """The observation of a :func:`kept_text`; ValueError if it is none."""
    return read(text.encode(), Observation)
