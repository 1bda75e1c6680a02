"""What a switchboard tells of a run: what became of a backend's own ops, and who was switched to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import field
from msgspec.structs import astuple

from pvops_core.records import Count, JsonRecord

SwitchState: TypeAlias = tuple[str, str, str, str, int, int | None, int, str]


class Switch(JsonRecord, frozen=True):
    """One change of an op's implementation, or one that was asked for and refused.

    Attributes:
        op: Hook name of the op.
        old: Name of the implementation before.
        new: Name of the one since.
        by: Who asked: `--switch`, a hook, or `kernel` where the kernel's own code wrote the slot.
        ns: Virtual time since which it is in effect, or at which it was refused, in nanoseconds.
        vcpu: The vCPU whose handler asked, or that had come to the place; null where there is none.
        sites: How many patched sites were written in its transaction.
        refused: Why it was not made; empty where it was.
    """

    op: str
    old: str = field(name="from")
    new: str = field(name="to")
    by: str
    ns: Count
    vcpu: Count | None
    sites: Count
    refused: str = ""

    @property
    def plain(self) -> SwitchState:
        """Its fields in order, as a snapshot holds them."""
        return astuple(self)


SiteUseEnd = Literal["called", "uncalled", "inlined", "nop", "empty", "partly lost", "lost"]


class SiteUse(JsonRecord, frozen=True):
    """What became of an op that the backend has itself.

    Attributes:
        becomes: Its hook was called, or not; its own code stands at all sites; it does nothing, or is empty; other code
            stands in its place at some sites, or at all.
        calls: Calls that its hook served.
        sites: Call sites of the op.
        inlined: Those where code stands that the backend itself has for the op.
        over: Those where other code stands in its place, by whose: `ALTERNATIVE !XENPV`, `native's patchlet`.
        told: Where an override has no effect, a line on why and what to do; else empty.
    """

    becomes: SiteUseEnd
    calls: Count
    sites: Count
    inlined: Count
    over: Mapping[str, Count]
    told: str
