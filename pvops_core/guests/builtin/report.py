"""What the guest says at the end: ``struct guest_report`` of its ``kernel.h``, at symbol ``guest_report``."""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping

import attrs

from pvops_core.errors import MachineError

MAGIC = 0x5452
FORMAT = struct.Struct("<4IQ10IQ4I")
REPORT_SYMBOL = "guest_report"
_COUNTS = (
    "result_count",
    "refused",
    "syscalls",
    "page_faults",
    "ticks",
    "switches",
    "sites",
    "pokes",
    "alternatives",
    "exercised",
    "spin_count",
)
"""The plain numbers, in the struct's order; the exit codes follow them."""


class Status(enum.IntEnum):
    """How far the guest came."""

    RUNNING = 0
    """It neither finished nor panicked: something outside ended the run."""
    DONE = 1
    PANIC = 2


@attrs.frozen
class Report:
    """The report, in the struct's order.

    Attributes:
        status: how far the guest came.
        ncpus: vCPUs that took part.
        digest: FNV-1a of all results, 64 bits: equal on every backend, however patched.
        result_count: results in the digest.
        refused: guarded calls that the platform answered with a fault.
        syscalls: system calls served.
        page_faults: page faults taken, user and kernel.
        ticks: timer interrupts taken.
        switches: context switches between processes.
        sites: annotated sites.
        pokes: writes to its own text.
        alternatives: alternatives applied.
        exercised: calls of ops that the exercise made.
        spin_count: what the vCPUs counted together under a spinlock.
        exit_codes: of the processes, in the order of their numbers.
    """

    status: Status
    ncpus: int
    digest: int
    result_count: int
    refused: int
    syscalls: int
    page_faults: int
    ticks: int
    switches: int
    sites: int
    pokes: int
    alternatives: int
    exercised: int
    spin_count: int
    exit_codes: tuple[int, ...]

    @property
    def results(self) -> Mapping[str, int | str]:
        """What must be the same on every backend."""
        return {
            "status": self.status.name.lower(),
            "ncpus": self.ncpus,
            "digest": f"{self.digest:016x}",
            "results": self.result_count,
            "syscalls": self.syscalls,
            "switches": self.switches,
            "sites": self.sites,
            "spin_count": self.spin_count,
            "exit_codes": " ".join(f"{code:#x}" for code in self.exit_codes),
        }

    @property
    def counts(self) -> Mapping[str, int]:
        """What depends on the platform, on patching or on time."""
        return {
            "refused": self.refused,
            "page_faults": self.page_faults,
            "ticks": self.ticks,
            "pokes": self.pokes,
            "alternatives": self.alternatives,
            "exercised": self.exercised,
        }

    @classmethod
    def read(cls, symbols: Mapping[str, int], read: Callable[[int, int], bytes]) -> Report:
        """What a guest wrote into its report so far.

        Args:
            symbols: the guest's.
            read: gives bytes of its memory, by virtual address and length.

        Raises:
            MachineError: the report is damaged.
        """
        return cls.unpack(read(symbols[REPORT_SYMBOL], FORMAT.size))

    @classmethod
    def unpack(cls, data: bytes) -> Report:
        """Read the struct's bytes.

        Raises:
            MachineError: they are none: the guest overwrote them, or they were read from a wrong place.
        """
        magic, size, status, ncpus, digest, *rest = FORMAT.unpack(data)
        if magic != MAGIC or size != FORMAT.size or status not in list(Status):
            raise MachineError(f"the guest's report is damaged: it begins with {data[:12].hex(' ')}")
        counts, exit_codes = rest[: len(_COUNTS)], tuple(rest[len(_COUNTS) :])
        named = dict(zip(_COUNTS, counts, strict=True))
        return cls(status=Status(status), ncpus=ncpus, digest=digest, exit_codes=exit_codes, **named)
