"""What the rounds of a workload took: counted from the mark before the first of them to the mark behind the last."""

from __future__ import annotations

from pvops_core.records import Count, JsonRecord, Seconds
from pvops_core.runs.counts import Counts


class Amounts(JsonRecord, frozen=True):
    """What can be counted at any moment of a run.

    Attributes:
        counts: Counters.
        instructions: Guest instructions executed, on all CPUs; 0 where they are not counted.
        virtual_ns: Virtual time, in nanoseconds; it orders what happens, and is no measure of a backend.
        wall_s: Wall time, in seconds.
    """

    counts: Counts = Counts()
    instructions: Count = 0
    virtual_ns: Count = 0
    wall_s: Seconds = 0.0

    def since(self, before: Amounts) -> Amounts:
        """What has been counted since another moment."""
        return Amounts(
            self.counts.since(before.counts),
            self.instructions - before.instructions,
            self.virtual_ns - before.virtual_ns,
            self.wall_s - before.wall_s,
        )


class Rounds(JsonRecord, frozen=True):
    """The rounds of one workload.

    Attributes:
        rounds: Rounds that were made.
        value: What they came to by the program's own account; the same wherever as many are made on as many CPUs.
        total: What all of them took together; divided by `rounds` it is what one takes.
    """

    rounds: Count
    value: Count
    total: Amounts
