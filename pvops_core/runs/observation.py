"""An observation: everything that one run let itself be seen by, as plain data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs

from pvops_core.runs.cell import Cell
from pvops_core.runs.described import described, sha256

SITE_FORMS = ("inlined", "direct", "indirect", "nop")
"""What a site can have become, in the order in which tables show it; backends may add forms."""


class Outcome(enum.Enum):
    """How a run ended. The first three are the guest's own will, the next two its failure, the rest ours."""

    POWEROFF = "poweroff"
    REBOOT = "reboot"
    HALTED = "halted"
    """The guest stopped its processors for good when it was to end, having no way to switch the machine off."""
    CRASH = "crash"
    TIMEOUT = "timeout"
    UNTIL = "until"
    """The console said what was waited for, and the run was ended there."""
    UNSUPPORTED = "unsupported"
    """The backend cannot be what the cell asks for; nothing ran."""
    ERROR = "error"
    """pvops or a plugin refused or failed, with a message."""
    DIED = "died"
    """The child process ended without an answer, for example by an abort in a library."""
    MEMORY = "memory"
    """The host refused memory that the run needs, or the child process grew beyond its limit."""
    GARBAGE = "garbage"
    """The child process answered with something that is not an observation, or with far too much."""

    @property
    def finished(self) -> bool:
        """The guest came to its own end."""
        return self in {Outcome.POWEROFF, Outcome.REBOOT, Outcome.HALTED}

    @property
    def exit_code(self) -> int:
        """What this outcome alone makes of a command: 0, 2 (asked too much), 6 (the guest failed) or 4 (we did)."""
        if self.finished or self is Outcome.UNTIL:
            return 0
        if self is Outcome.UNSUPPORTED:
            return 2
        return 6 if self in {Outcome.CRASH, Outcome.TIMEOUT} else 4


@attrs.frozen
class Observation:
    """One cell's run. What each field says, and where it stands in the JSON, is beside it; most can be left out."""

    cell: Cell
    outcome: Outcome = described("How the run ended.", converter=Outcome)  # noqa: RUF009 - an attrs field
    reason: str = described("Why, in a line.", "")
    detail: str = described(
        "Longer text about a failure: where vCPUs were, a traceback, the end of the child's error output.", ""
    )
    messages: tuple[str, ...] = described(
        "What the platform itself said, such as why it refused something: the last hundred lines.",
        (),
        converter=tuple,
    )
    results: Mapping[str, str] = described(
        "The words of the built-in guest's report that must be equal on every backend.", dict
    )
    console: str = described("All that the guest printed.", "")
    op_calls: Mapping[str, int] = described("Calls that a backend's hook served, by op.", dict, at="counts.ops")
    own_calls: Mapping[str, int] = described(
        "Those of them that the backend's own hooks served, and not its bases', by op.", dict, at="counts.own"
    )
    hypercalls: Mapping[str, int] = described(
        "Requests to the hypervisor or host, by name.", dict, at="counts.hypercalls"
    )
    traps: Mapping[str, int] = described(
        "Times that the guest trapped into its platform, by name of the trap.", dict, at="counts.traps"
    )
    page_table_updates: int = described(
        "Page-table entries that the platform wrote or checked for the guest.", 0, at="counts.page_table_updates"
    )
    flushes: int = described("TLB flushes asked of the platform.", 0, at="counts.flushes")
    switches: int = described(
        "Times that an op was given another implementation while the guest ran.", 0, at="counts.switches"
    )
    counts: Mapping[str, int] = described("The machine's own counters, by name.", dict, at="counts.machine")
    guest_counts: Mapping[str, int] = described(
        "What the built-in guest counted and the platform decides, by name.", dict, at="counts.guest"
    )
    own: Mapping[str, Mapping[str, Any]] = described(
        "What became of each op that the backend has itself, where a switchboard serves them: of the built-in guest.",
        dict,
        additionalProperties={"$ref": "#/$defs/fate"},
    )
    switch_log: tuple[Mapping[str, Any], ...] = described(
        "Switches of ops while the guest ran, in order; a kernel's own writes to its table too.",
        (),
        converter=tuple,
        items={"$ref": "#/$defs/switch"},
    )
    switch_orders: tuple[Mapping[str, Any], ...] = described(
        "Each `--switch` and what came of it.", (), converter=tuple, items={"$ref": "#/$defs/switch_order"}
    )
    sites: Mapping[str, Mapping[str, int]] = described(
        "Op -> form (see ``SITE_FORMS``) -> sites of that form at the end.", dict, at="sites_by_op", by_hand=True
    )
    sites_note: str = described(
        "When the sites of a real kernel were read, or why they were not; empty where nobody asked.", ""
    )
    site_codes: Mapping[str, Mapping[str, str]] = described(
        "Op -> address of a site, in hex -> its bytes, in hex; of a real kernel that was examined.", dict, at=""
    )
    points: Mapping[str, Mapping[str, float]] = described(
        "Named point of a real kernel's boot -> times, vCPU and counts when it was first met.", dict, by_hand=True
    )
    inside: Mapping[str, Any] = described("What looking inside a kernel's boot found.", dict, by_hand=True)
    livepatch: Mapping[str, Any] = described("What was done to a kernel's live patches.", dict, by_hand=True)
    vcpus_started: int = described(
        "Virtual CPUs that the guest has started, the first among them; fewer than `vcpus` where it left some alone.",
        0,
    )
    instructions: int = described("Guest instructions executed; 0 where they were not counted.", 0)
    virtual_ns: int = described("Virtual time at the end, in nanoseconds.", 0)
    wall_s: float = described(
        "Wall time in seconds, without start-up; wall time is all that differs from run to run.", 0.0
    )
    event_log_sha256: str = sha256("Hash of all that happened, in order; empty where nothing was measured.")
    text_sha256: str = sha256("Hash of the guest's text at the end; empty where nothing was measured.")
    versions: Mapping[str, str] = described("Software and its version.", dict)

    @property
    def measured(self) -> bool:
        """It has numbers: a run that was lost has none."""
        return bool(self.event_log_sha256)

    @property
    def unused(self) -> tuple[str, ...]:
        """A line for each op that the backend has itself and that had no effect, at some of its sites or at all.

        None of a run that did not come to its end: what it would have called nobody knows.
        """
        if not self.outcome.finished:
            return ()
        return tuple(fate["told"] for fate in self.own.values() if fate["told"])

    @property
    def sites_by_form(self) -> dict[str, int]:
        """Form -> number of sites, over all ops; the usual forms are always there and come first."""
        totals = dict.fromkeys(SITE_FORMS, 0)
        for forms in self.sites.values():
            for form, number in forms.items():
                totals[form] = totals.get(form, 0) + number
        return totals

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``from_json`` takes it back."""
        return attrs.asdict(self) | {"cell": self.cell.to_json(), "outcome": self.outcome.value}

    @classmethod
    def from_json(cls, document: Any) -> Observation:  # noqa: ANN401 -- whatever a JSON parser returned
        """The observation of ``to_json``.

        Raises:
            TypeError, ValueError, KeyError: the document is not one.
        """
        fields = dict(document)
        return cls(cell=Cell.from_json(fields.pop("cell")), **fields)
