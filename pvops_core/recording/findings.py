"""What is told of the recording of a real boot."""

from __future__ import annotations

from typing import Literal

from pvops_core.images.findings import Image
from pvops_core.records import Count, JsonRecord, Positive


class RecordedBoot(JsonRecord, frozen=True):
    """What a kernel was booted on.

    Attributes:
        platform: Bare metal, or the first domain of a hypervisor.
        cpus: CPUs.
        cpu: CPU model of QEMU's.
        memory_mib: The kernel's memory in MiB.
        cmdline: Its command line.
    """

    platform: Literal["native", "xen"]
    cpus: Positive
    cpu: str
    memory_mib: Positive
    cmdline: str


class RecordedAlternatives(JsonRecord, frozen=True):
    """Places with alternatives that a kernel has.

    Attributes:
        groups: How many there are.
        changed: Those whose bytes were not those of the file after `apply_alternatives`.
    """

    groups: Count
    changed: Count


class RecordResult(JsonRecord, frozen=True):
    """What was recorded of a real boot; the record itself is in the file that it names.

    Attributes:
        image: The kernel.
        boot: What it was booted on.
        record: File of the record.
        layout: Layout of the table of ops.
        sites: Call sites that it has.
        alternatives: Places with alternatives that it has.
        moments: Where the kernel was stopped, in order.
    """

    image: Image
    boot: RecordedBoot
    record: str
    layout: str
    sites: Count
    alternatives: RecordedAlternatives
    moments: tuple[str, ...]
