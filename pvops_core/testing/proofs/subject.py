"""A kernel on a backend, as many sessions as a proof needs, and the hooks that are proven."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends import chain
from pvops_core.backends.proof import ProofNotes
from pvops_core.errors import SwitchError
from pvops_core.guest.points import POINTS
from pvops_core.guests import Kernel, read_kernel
from pvops_core.session import Session, hosted
from pvops_core.testing.booted import PLACE, SMALLEST_RAMDISK

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.switchboard.implementation import Implementation


POINT: Final = {symbol for point in POINTS if point.name == PLACE for symbol in point.symbols}


@attrs.frozen(kw_only=True)
class Subject:
    """What is proven against what.

    Attributes:
        backend: name of the backend whose hooks are proven.
        links: the backend, its base, its base's base.
        kernel: the kernel.
        vcpus: number of virtual CPUs.
        seed: of the runs.
        memory: bytes of guest memory.
        options: settings of the platform, name to text.
        stop_at: where a boot ends; empty for its own end.
    """

    backend: str
    links: tuple[Backend, ...]
    kernel: Kernel
    vcpus: int = 1
    seed: int = 0
    memory: int = Kernel.default_memory
    options: Mapping[str, str] = attrs.field(factory=dict)
    stop_at: str = ""

    @classmethod
    def of(
        cls, backend: str, backends: Mapping[str, Backend], image: Path | str, initrd: Path | str | None, cmdline: str
    ) -> Subject:
        """A kernel of files; its command line tells it of the platform's console unless it names one.

        Without a ramdisk it gets one that is just enough to come to the beginning of the first process, and ends there.

        Raises:
            ImageError: the files are no kernel.
            UsageError: the backend hosts no such kernel.
        """
        links = chain(backends[backend], backends)
        kernel = read_kernel(image, initrd, cmdline)
        console = hosted(kernel.boot_protocol, kernel.kinds, links)[0].console_name
        words = cmdline.split()
        if console and not any(word.startswith("console=") for word in words):
            words.append(f"console={console}")
        made = Kernel(kernel.image, kernel.initrd or SMALLEST_RAMDISK, " ".join(words))
        there = made.symbols.keys() >= POINT
        return cls(backend=backend, links=links, kernel=made, stop_at=PLACE if there and not initrd else "")

    @property
    def notes(self) -> ProofNotes:
        """What the backends of the chain say of their hooks."""
        return ProofNotes.of(link.proof for link in self.links)

    def make(self) -> Session:
        """A session that has not run; each is the same."""
        return Session(
            self.kernel,
            self.links,
            vcpus=self.vcpus,
            seed=self.seed,
            memory=self.memory,
            options=self.options,
            stop_at=self.stop_at,
        )

    def offer(self, session: Session, op: str) -> Implementation | None:
        """The hook that the backend has for an op, itself or by its base; None if there is none in Python."""
        try:
            return session.ops.offered(op, self.backend)
        except SwitchError:
            return None
