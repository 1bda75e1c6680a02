"""What was found by looking inside a kernel's boot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pvops_core.records import Count, JsonRecord

Step = Literal["paravirt", "final", "slot", "lock"]


class Dumped(JsonRecord, frozen=True):
    """A dump of a kernel's memory that was written.

    Attributes:
        file: Its path.
        own_info: Its VMCOREINFO is the kernel's; else it is made of the image's symbols, since the kernel had none yet,
            and says no more than what translates addresses.
    """

    file: str
    own_info: bool


class PatchingDifference(JsonRecord, frozen=True):
    """A site, or a slot of the table, of which the witnesses say different things.

    Attributes:
        step: The step of patching after which it was read; `slot` for a slot, `lock` for a lock prefix.
        op: The kernel's path of the op; "lock" for a lock prefix.
        address: Virtual address.
        symbol: That as function and offset; of a slot, the function that it holds.
        predicted: Bytes of our plan, in hex.
        kernel: Bytes that the kernel wrote.
        record: Bytes of the record; null for none.
        assembly: What each of them amounts to, by witness.
    """

    step: Step
    op: str
    address: str
    symbol: str
    predicted: str
    kernel: str
    record: str | None
    assembly: Mapping[str, str]


class Patching(JsonRecord, frozen=True):
    """`--verify-patching`: what three witnesses say of the kernel's paravirt sites.

    Attributes:
        equal: The kernel has patched itself, and all witnesses say the same.
        sites: Sites that were compared.
        locks: Lock prefixes that were compared, when init text is given back; null for a kernel that does not say where
            they are, or did not come so far.
        steps: `paravirt` (to 6.7) and `final`, the steps that the kernel takes: differences after each; null if it did
            not come to its end.
        record: File of the record that was compared; null for none.
        records: File of each record of this very kernel: the ops whose slots its boot filled otherwise.
        differences: Where the witnesses differ.
    """

    equal: bool
    sites: Count
    locks: Count | None
    steps: Mapping[str, int | None]
    record: str | None
    records: Mapping[str, tuple[str, ...]]
    differences: tuple[PatchingDifference, ...]


class TimedCount(JsonRecord, frozen=True):
    """How often something happened, and how long it took together.

    Attributes:
        count: Times.
        ns: Virtual nanoseconds, whatever happened meanwhile included.
    """

    count: Count = 0
    ns: Count = 0

    def more(self, count: int, ns: int) -> TimedCount:
        """With some more."""
        return TimedCount(self.count + count, self.ns + ns)


class TracedSite(JsonRecord, frozen=True):
    """A call site that was executed.

    Attributes:
        address: Virtual address.
        symbol: That as function and offset.
        op: The kernel's path of the op.
        count: Times.
        ns: Virtual nanoseconds from there to the instruction behind it.
    """

    address: str
    symbol: str
    op: str
    count: Count
    ns: Count


class Traced(JsonRecord, frozen=True):
    """`--trace ops`: what was counted and timed.

    Attributes:
        ops: The kernel's path of each op that was called: at its sites, whatever they had become.
        hypercalls: Each hypercall that was made, entries of multicalls too.
        traps: Each way of trapping into the platform: `syscall in place` are hypercalls that need no change of place.
        sites: Each site that was executed.
    """

    ops: Mapping[str, TimedCount]
    hypercalls: Mapping[str, TimedCount]
    traps: Mapping[str, TimedCount]
    sites: tuple[TracedSite, ...]
