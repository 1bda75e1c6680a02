"""An observation: everything that one run let itself be seen by, as plain data."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs
from attrs import validators

from pvops_core.runs.cell import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SITE_FORMS = ("inlined", "direct", "indirect", "nop")
"""What a site can have become, in the order in which tables show it; backends may add forms."""


class Outcome(enum.Enum):
    """How a run ended. The first two are the guest's own will, the next two its failure, the rest ours."""

    POWEROFF = "poweroff"
    REBOOT = "reboot"
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
    """The child process grew beyond its limit."""
    GARBAGE = "garbage"
    """The child process answered with something that is not an observation, or with far too much."""

    @property
    def finished(self) -> bool:
        """The guest came to its own end."""
        return self in {Outcome.POWEROFF, Outcome.REBOOT}

    @property
    def exit_code(self) -> int:
        """What this outcome alone makes of a command: 0, 2 (asked too much), 6 (the guest failed) or 4 (we did)."""
        if self.finished or self is Outcome.UNTIL:
            return 0
        if self is Outcome.UNSUPPORTED:
            return 2
        return 6 if self in {Outcome.CRASH, Outcome.TIMEOUT} else 4


_text = validators.instance_of(str)
_number = validators.instance_of(int)
_texts = validators.deep_mapping(_text, _text, validators.instance_of(dict))
_counter = validators.deep_mapping(_text, _number, validators.instance_of(dict))
_measure = validators.deep_mapping(_text, validators.instance_of((int, float)), validators.instance_of(dict))


def _tuple(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(lines)


_lines = validators.deep_iterable(_text)
_measures = validators.deep_mapping(_text, _measure, validators.instance_of(dict))
_objects = validators.deep_mapping(_text, validators.instance_of(dict), validators.instance_of(dict))
_listed = validators.deep_iterable(validators.instance_of(dict))
_codes = validators.deep_mapping(_text, _texts, validators.instance_of(dict))
_counters = validators.deep_mapping(_text, _counter, validators.instance_of(dict))


@attrs.frozen
class Observation:
    """One cell's run.

    Attributes:
        cell: what was run.
        outcome: how it ended.
        reason: one line on why, for a person.
        results: the guest's own report, word by word; must be equal on every backend.
        console: what the guest printed.
        op_calls: op name -> calls that a hook served; of a real kernel that was traced, calls made at its sites.
        own_calls: those of them that the backend's own hooks served, and not its bases'.
        own: op name -> what has become of what the backend has for it itself, as JSON.
        sites: op name -> form (see ``SITE_FORMS``) -> number of sites of that form at the end.
        traps: trap name -> number of times that the guest trapped into its platform.
        hypercalls: hypercall name -> calls.
        counts: the machine's own counters, by name.
        guest_counts: what the guest counted and the platform decides, by name: ticks, pokes of its text.
        page_table_updates: page-table entries that the platform wrote or checked for the guest.
        flushes: TLB flushes asked of the platform.
        vcpus_started: virtual CPUs that the guest has started, the first among them.
        messages: what the platform itself said at the end, such as why it refused things.
        instructions: guest instructions executed; 0 where they were not counted.
        virtual_ns: virtual time in nanoseconds.
        wall_s: wall time of the run in seconds, without start-up; the one field that differs from run to run.
        switches: times that an op was given another implementation while the guest ran.
        switch_log: those switches, and those that were asked for and could not be made, in order, as JSON.
        switch_orders: what the command line asked for and what came of it, as JSON.
        event_log_sha256: hash of the event log, equal for equal cells.
        text_sha256: hash of the guest's text at the end.
        site_codes: op name -> address of a site, in hex -> its bytes, in hex; of a real kernel that was examined.
        sites_note: when the sites of a real kernel were read, or why they were not.
        versions: software name -> version.
        points: name of a point of a real kernel's boot -> ``virtual_ns`` and ``wall_s`` at which it was first met, the
            number of the ``vcpu`` that met it, and the ``traps``, ``hypercalls``, ``page_table_updates`` and accesses
            to ``ports`` until then; in the order of meeting.
        inside: what looking inside a real kernel's boot found, as JSON; empty unless asked for.
        livepatch: what was done to a real kernel's live patches, as JSON; empty unless asked for.
        detail: longer text about a failure: a traceback, or the end of the child's error output.
    """

    cell: Cell
    outcome: Outcome = attrs.field(converter=Outcome)
    reason: str = attrs.field(default="", validator=_text)
    results: Mapping[str, str] = attrs.field(factory=dict, validator=_texts)
    console: str = attrs.field(default="", validator=_text)
    op_calls: Mapping[str, int] = attrs.field(factory=dict, validator=_counter)
    own_calls: Mapping[str, int] = attrs.field(factory=dict, validator=_counter)
    own: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, validator=_objects)
    sites: Mapping[str, Mapping[str, int]] = attrs.field(factory=dict, validator=_counters)
    traps: Mapping[str, int] = attrs.field(factory=dict, validator=_counter)
    hypercalls: Mapping[str, int] = attrs.field(factory=dict, validator=_counter)
    counts: Mapping[str, int] = attrs.field(factory=dict, validator=_counter)
    guest_counts: Mapping[str, int] = attrs.field(factory=dict, validator=_counter)
    page_table_updates: int = attrs.field(default=0, validator=_number)
    flushes: int = attrs.field(default=0, validator=_number)
    vcpus_started: int = attrs.field(default=0, validator=_number)
    messages: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_lines)
    instructions: int = attrs.field(default=0, validator=_number)
    virtual_ns: int = attrs.field(default=0, validator=_number)
    wall_s: float = attrs.field(default=0.0, validator=validators.instance_of((int, float)))
    switches: int = attrs.field(default=0, validator=_number)
    switch_log: tuple[Mapping[str, Any], ...] = attrs.field(default=(), converter=tuple, validator=_listed)
    switch_orders: tuple[Mapping[str, Any], ...] = attrs.field(default=(), converter=tuple, validator=_listed)
    event_log_sha256: str = attrs.field(default="", validator=_text)
    text_sha256: str = attrs.field(default="", validator=_text)
    site_codes: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict, validator=_codes)
    sites_note: str = attrs.field(default="", validator=_text)
    versions: Mapping[str, str] = attrs.field(factory=dict, validator=_texts)
    points: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict, validator=_measures)
    inside: Mapping[str, Any] = attrs.field(factory=dict, validator=validators.instance_of(dict))
    livepatch: Mapping[str, Any] = attrs.field(factory=dict, validator=validators.instance_of(dict))
    detail: str = attrs.field(default="", validator=_text)

    @property
    def measured(self) -> bool:
        """It has numbers: a run that was lost has none."""
        return bool(self.event_log_sha256)

    @property
    def unused(self) -> tuple[str, ...]:
        """A line for each op that the backend has itself and that had no effect, at some of its sites or at all."""
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
