"""An observation: everything that one run let itself be seen by, as plain data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

from msgspec import field
from msgspec.structs import force_setattr

from pvops_core.livepatch.control.findings import LivePatched
from pvops_core.records import FLAT, INNER, Count, JsonRecord, MaybeSha256, Seconds
from pvops_core.runs.cell import Cell
from pvops_core.runs.counts import ByName, Counts
from pvops_core.runs.inside import BootPoint, Inside
from pvops_core.runs.orders import DumpDone, SwitchDone
from pvops_core.runs.rounds import Rounds
from pvops_core.switchboard.findings import SiteUse, Switch

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
    ENDED = "ended"
    """Whoever sat at the console ended the run."""
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
        if self.finished or self in {Outcome.UNTIL, Outcome.ENDED}:
            return 0
        if self is Outcome.UNSUPPORTED:
            return 2
        return 6 if self in {Outcome.CRASH, Outcome.TIMEOUT} else 4


class Observation(JsonRecord, frozen=True):
    """One run: a cell and what was observed of it. Most can be left out.

    Attributes:
        cell: What was run.
        outcome: How the run ended.
        reason: Why, in a line.
        detail: Longer text about a failure: where vCPUs were, a traceback, the end of the child's error output.
        messages: What the platform itself said, such as why it refused something: the last hundred lines.
        results: What must be equal on every backend: the words of the built-in guest's report.
        console: All that the guest printed.
        counts: Counters.
        own: What became of each op that the backend has itself, where a switchboard serves them: of the built-in guest.
        switch_log: Switches of ops while the guest ran, in order; a kernel's own writes to its table too.
        switch_orders: Each `--switch` and what came of it.
        dumps: Each `--dump-at` and `--dump-on` and what came of it.
        sites: Call sites by what they are at the end (`inlined`, `direct`, `indirect`, `nop`, or a form of the
            backend's), by op.
        sites_note: When the sites of a real kernel were read, or why they were not; empty where nobody asked.
        points: Named points of a real kernel's boot, in the order in which they were met: `start_kernel`,
            `alternatives`, `paravirt`, `patched`, `free_initmem`, `init`, `power-off`.
        inside: What looking inside a kernel's boot found.
        rounds: What the rounds of each workload took, by its name, in the order in which they were made.
        livepatch: What was done to the kernel's live patches by `--livepatch` and `--livepatch-socket`.
        vcpus_started: Virtual CPUs that the guest has started, the first among them; fewer than `vcpus` where it left
            some alone.
        instructions: Guest instructions executed; 0 where they were not counted.
        virtual_ns: Virtual time at the end, in nanoseconds; it orders what happens, and is no measure of a backend.
        wall_s: Wall time in seconds, without start-up; wall time is all that differs from run to run.
        event_log_sha256: Hash of all that happened, in order; empty where nothing was measured.
        text_sha256: Hash of the guest's text at the end; empty where nothing was measured.
        versions: Software and its version.
        site_codes: Op -> address of a site, in hex -> its bytes, in hex; of a real kernel that was examined.
        sites_by_form: Call sites by what they are at the end, over all ops; the usual forms come first.
    """

    cell: Annotated[Cell, FLAT]
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    messages: tuple[str, ...] = ()
    results: Mapping[str, str] = field(default_factory=dict)
    console: str = ""
    counts: Counts = Counts()
    own: Mapping[str, SiteUse] = field(default_factory=dict)
    switch_log: tuple[Switch, ...] = ()
    switch_orders: tuple[SwitchDone, ...] = ()
    dumps: tuple[DumpDone, ...] = ()
    sites: Mapping[str, ByName] = field(name="sites_by_op", default_factory=dict)
    sites_note: str = ""
    points: Mapping[str, BootPoint] = field(default_factory=dict)
    inside: Inside = Inside()
    rounds: Mapping[str, Rounds] = field(default_factory=dict)
    livepatch: LivePatched = LivePatched()
    vcpus_started: Count = 0
    instructions: Count = 0
    virtual_ns: Count = 0
    wall_s: Seconds = 0.0
    event_log_sha256: MaybeSha256 = ""
    text_sha256: MaybeSha256 = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    site_codes: Annotated[Mapping[str, Mapping[str, str]], INNER] = field(default_factory=dict)
    sites_by_form: ByName = field(name="sites", default_factory=dict)

    def __post_init__(self) -> None:
        """Add the sites up."""
        totals = dict.fromkeys(SITE_FORMS, 0)
        for forms in self.sites.values():
            for form, number in forms.items():
                totals[form] = totals.get(form, 0) + number
        force_setattr(self, "sites_by_form", totals)

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
        return tuple(use.told for use in self.own.values() if use.told)
