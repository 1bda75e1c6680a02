"""A cell: one guest on one backend with one workload and one seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import field

from pvops_core.kinds import MachineKind
from pvops_core.records import Count, JsonRecord, Positive

BUILTIN = "builtin"
DEFAULT_MEMORY = 16 << 20
_CONSOLE = "console="


class Group(JsonRecord, frozen=True):
    """What the cells of one comparison row have in common: all but the backend.

    Attributes:
        guest: `builtin`, or the path of a kernel.
        layout: Layout of the table of ops; empty for a kernel.
        kind: Machine kind.
        workload: Command line of the guest.
        seed: Seed of the runs.
        vcpus: Virtual CPUs.
        workloads: Workloads whose rounds a kernel's first process makes: `fork:100,mmap:100`; empty for none.
    """

    guest: str
    layout: str
    kind: MachineKind
    workload: str
    seed: Count
    vcpus: Count
    workloads: str = ""

    @property
    def title(self) -> str:
        """A line that names the group to a person."""
        cpus = "1 vCPU" if self.vcpus == 1 else f"{self.vcpus} vCPUs"
        cmdline = f", {self.workload!r}" if self.workload else ""
        workloads = f" · {self.workloads}" if self.workloads else ""
        return f"{self.kind.value} · {self.subject} · {cpus}{cmdline}{workloads}"

    @property
    def of_kernel(self) -> bool:
        """The guest is a real kernel."""
        return self.guest != BUILTIN

    @property
    def subject(self) -> str:
        """What runs, in a few words: the built-in guest's layout, or the kernel's file."""
        return Path(self.guest).name if self.of_kernel else f"layout {self.layout}"


class Cell(JsonRecord, frozen=True):
    """One run to be made, as plain data that can be sent to a child process.

    Attributes:
        backend: Name of the backend.
        layout: Layout of the table of ops, such as `6.1-64`; empty for a real kernel.
        kind: Machine kind.
        guest: `builtin`, or the path of a kernel.
        workload: Command line of the guest.
        seed: Seed of the run.
        vcpus: Virtual CPUs.
        memory: Guest memory in bytes.
        count_instructions: Whether guest instructions are counted; costs wall time, changes nothing else.
        initrd: Path of the kernel's initial ramdisk; empty for none.
        console_name: What a kernel is told to print to (`ttyS0`, `hvc0`) where its command line has no `console=`;
            empty for nothing. Backends differ in it within a group.
        options: Settings given to the platform, name to text.
        workloads: Workloads whose rounds the kernel's first process makes, each with its number: `fork:100,mmap:100`;
            empty for none, and for the process that the ramdisk has.
    """

    backend: str
    layout: str
    kind: MachineKind
    guest: str = BUILTIN
    workload: str = ""
    seed: Count = 0
    vcpus: Positive = 1
    memory: Count = DEFAULT_MEMORY
    count_instructions: bool = True
    initrd: str = ""
    console_name: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    workloads: str = ""

    def __hash__(self) -> int:
        return hash((self.group, self.backend))  # options are a mapping, which has none

    @property
    def group(self) -> Group:
        """The comparison this cell belongs to."""
        return Group(self.guest, self.layout, self.kind, self.workload, self.seed, self.vcpus, self.workloads)

    @property
    def cmdline(self) -> str:
        """The command line that the guest gets."""
        words = self.workload.split()
        if not self.console_name or any(word.startswith(_CONSOLE) for word in words):
            return self.workload
        return " ".join([*words, _CONSOLE + self.console_name])

    @property
    def title(self) -> str:
        """A short name for progress lines and error messages."""
        return f"{self.backend} on {self.layout or self.guest} ({self.kind.value})"
