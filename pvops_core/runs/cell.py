"""A cell: one guest on one backend with one workload and one seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import validators

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILTIN = "builtin"
DEFAULT_MEMORY = 16 << 20
_CONSOLE = "console="

_text = validators.instance_of(str)
_number = validators.and_(validators.instance_of(int), validators.ge(0))


@attrs.frozen
class Group:
    """What the cells of one comparison row have in common: all but the backend.

    Attributes:
        guest: ``builtin``, or the path of a kernel image.
        layout: name of the paravirt layout, for example ``6.1-64``; empty for a kernel.
        kind: machine kind.
        workload: the guest's command line.
        seed: of the scheduler and of everything else that is chosen in a run.
        vcpus: number of virtual CPUs.
    """

    guest: str
    layout: str
    kind: MachineKind
    workload: str
    seed: int
    vcpus: int

    @property
    def title(self) -> str:
        """A line that names the group to a person."""
        cpus = "1 vCPU" if self.vcpus == 1 else f"{self.vcpus} vCPUs"
        workload = f", {self.workload!r}" if self.workload else ""
        return f"{self.kind.value} · {self.subject} · {cpus}{workload}"

    @property
    def of_kernel(self) -> bool:
        """The guest is a real kernel."""
        return self.guest != BUILTIN

    @property
    def subject(self) -> str:
        """What runs, in a few words: the built-in guest's layout, or the kernel's file."""
        return Path(self.guest).name if self.of_kernel else f"layout {self.layout}"


@attrs.frozen
class Cell:
    """One run to be made, as plain data that can be sent to a child process.

    Attributes:
        backend: name of the backend.
        layout: name of the paravirt layout.
        kind: machine kind that the layout runs on.
        guest: ``builtin``, or the path of a kernel image.
        initrd: path of the kernel's initial ramdisk; empty for none.
        workload: the guest's command line.
        console_name: what a kernel is told to print to where its command line does not say (``ttyS0``, ``hvc0``); empty
            for nothing. Backends differ in it within a group.
        seed: of the run.
        vcpus: number of virtual CPUs.
        memory: guest-physical memory in bytes.
        count_instructions: count guest instructions; costs wall time, changes nothing else.
        options: settings of the backend's platform, name to text.
    """

    backend: str = attrs.field(validator=_text)
    layout: str = attrs.field(validator=_text)
    kind: MachineKind = attrs.field(converter=MachineKind)
    guest: str = attrs.field(default=BUILTIN, validator=_text)
    workload: str = attrs.field(default="", validator=_text)
    seed: int = attrs.field(default=0, validator=_number)
    vcpus: int = attrs.field(default=1, validator=_number)
    memory: int = attrs.field(default=DEFAULT_MEMORY, validator=_number)
    count_instructions: bool = attrs.field(default=True, validator=validators.instance_of(bool))
    initrd: str = attrs.field(default="", validator=_text)
    console_name: str = attrs.field(default="", validator=_text)
    options: Mapping[str, str] = attrs.field(
        factory=dict, hash=False, validator=validators.deep_mapping(_text, _text, validators.instance_of(dict))
    )

    @property
    def group(self) -> Group:
        """The comparison this cell belongs to."""
        return Group(self.guest, self.layout, self.kind, self.workload, self.seed, self.vcpus)

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

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``from_json`` takes it back."""
        return attrs.asdict(self) | {"kind": self.kind.value}

    @classmethod
    def from_json(cls, document: Any) -> Cell:  # noqa: ANN401 -- whatever a JSON parser returned
        """The cell of ``to_json``.

        Raises:
            TypeError, ValueError: the document is not one.
        """
        return cls(**document)
