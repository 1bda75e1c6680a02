"""Counters of a run, or of a part of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import field
from msgspec.structs import asdict

from pvops_core.records import FLAT, Count, JsonRecord

ByName = Mapping[str, Count]


class PlatformCounts(JsonRecord, frozen=True):
    """What a platform counts, under the names that it has there (:class:`pvops_core.backends.Platform`).

    Attributes:
        hypercalls: Requests to the hypervisor or host, by name.
        traps: Times that the guest trapped into its platform, by name of the trap.
        page_table_updates: Page-table entries that the platform wrote or checked for the guest.
        flushes: TLB flushes asked of the platform.
    """

    hypercalls: ByName = field(default_factory=dict)
    traps: ByName = field(default_factory=dict)
    page_table_updates: Count = 0
    flushes: Count = 0


class Counts(JsonRecord, frozen=True):
    """Counters.

    Attributes:
        ops: Calls that a backend's hook served, by op.
        own: Those of them that the backend's own hooks served, and not its bases', by op.
        platform: What the platform counts.
        switches: Times that an op was given another implementation while the guest ran.
        machine: The machine's own counters, by name.
        guest: What the built-in guest counted and the platform decides, by name.
    """

    ops: ByName = field(default_factory=dict)
    own: ByName = field(default_factory=dict)
    platform: Annotated[PlatformCounts, FLAT] = PlatformCounts()
    switches: Count = 0
    machine: ByName = field(default_factory=dict)
    guest: ByName = field(default_factory=dict)

    def since(self, before: Counts) -> Counts:
        """What has been counted since other counters were read; names of which nothing was are left out."""
        own, earlier = asdict(self), asdict(before)
        platform, platform_before = asdict(own.pop("platform")), asdict(earlier.pop("platform"))
        return Counts(platform=PlatformCounts(**_less(platform, platform_before)), **_less(own, earlier))


def _less(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The differences of numbers, and of mappings to numbers."""
    return {
        name: value - before[name] if isinstance(value, int) else dict(Counter(value) - Counter(before[name]))
        for name, value in after.items()
    }
