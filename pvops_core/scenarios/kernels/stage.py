"""Runs a kernel and keeps all that a scenario wants to look at afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends import chain
from pvops_core.backends.choices import settings_of
from pvops_core.errors import ImageError, PatchError, UsageError
from pvops_core.machine import Stop
from pvops_core.scenarios.kernels.descent import Descent
from pvops_core.scenarios.kernels.run import KernelRun, came_to_its_end
from pvops_core.scenarios.run import Prepare, unprepared
from pvops_core.scenarios.witness import Witness
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.guest.points import Passed
    from pvops_core.guests import Kernel
    from pvops_core.machine import Vcpu

MAX_NS: Final = 20_000_000_000
"""Virtual time that a run may take; a sound one takes a tenth of it."""
_EARLY: Final = {"xen": "earlyprintk=xen", "native": "earlyprintk=serial"}
"""What lets a kernel speak before it has a console."""
_EXECUTABLE: Final = 4
"""SHF_EXECINSTR (elf.h)."""


@attrs.frozen
class KernelStage:
    """Where scenarios are played on a kernel.

    Attributes:
        backends: all that are installed.
        kernel: the kernel, its initial ramdisk, and what is to be said on its command line beside its console.
        seed: of every run.
        options: settings of platforms, name to text; a run's backend is given those that it has.
    """

    backends: Mapping[str, Backend]
    kernel: Kernel
    seed: int = 0
    options: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def guest(self) -> Mapping[str, str]:
        """The kernel's file, what it calls itself, and the hash of its image."""
        image = self.kernel.image
        return {
            "path": str(image.path),
            "release": image.release,
            "sha256": image.sha256,
        }

    def refused(self, why: str, age: str) -> UsageError:
        """That the kernel is not of a scenario's age.

        Args:
            why: what it lacks.
            age: which kernels have it.
        """
        return UsageError(f"{self.kernel.image.path}: {why}; this scenario needs {age}")

    def require(self, age: str, *symbols: str) -> None:
        """Refuse a kernel that lacks one of some symbols."""
        for symbol in symbols:
            if symbol not in self.kernel.symbols:
                raise self.refused(f"has no {symbol}", age)

    def chain(self, backend: str) -> tuple[Backend, ...]:
        """A backend and its bases; UsageError if it is not installed."""
        if backend not in self.backends:
            raise UsageError(f"this scenario needs the backend {backend!r}; installed are {', '.join(self.backends)}")
        return chain(self.backends[backend], self.backends)

    def hosts(self, backend: str) -> bool:
        """Whether an installed backend has a machine for the kernel, and loads it."""
        try:
            Session(self.kernel, self.chain(backend)).close()
        except (UsageError, ImageError):
            return False
        return True

    def run(self, backend: str, *, prepare: Prepare = unprepared) -> KernelRun:
        """Run the kernel to its end.

        Args:
            backend: name of the backend.
            prepare: what to do with the session before it runs.

        Raises:
            UsageError: the backend is not there or cannot host the kernel.
            ImageError: it cannot boot it.
        """
        links, known = (
            self.chain(backend),
            settings_of(self.backends[backend], self.backends),
        )
        console = next(
            (link.platform.console_name for link in links if link.platform is not None),
            "",
        )
        said = (
            f"console={console}",
            _EARLY.get(backend, ""),
            "panic=1",
            self.kernel.cmdline,
        )
        guest = attrs.evolve(self.kernel, cmdline=" ".join(filter(None, said)))
        options = {name: text for name, text in self.options.items() if name in known}
        with Session(guest, links, seed=self.seed, options=options) as session:
            witness, patched = Witness(), PatchedText(session)
            session.machine.observe(witness.note)
            session.machine.observe(Descent().note)
            prepare(session)
            try:
                stop = session.run(max_ns=MAX_NS)
            except PatchError as error:  # it has gone astray and written over its table of ops
                stop = Stop(
                    "crash",
                    f"the kernel has spoilt a slot that has a hook: {error.message}",
                )
            return _collect(session, backend, self.kernel.cmdline, stop, witness, patched)


class PatchedText:
    """A kernel's text as it was when it had patched itself, or is if it did not come so far."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kept: tuple[tuple[int, bytes], ...] = ()
        session.points.listen(self._at, acts=False)

    def _at(self, passed: Passed, _vcpu: Vcpu) -> None:
        if passed.name == "patched":
            self._kept = self._read()

    def _read(self) -> tuple[tuple[int, bytes], ...]:
        image = self._session.guest.image
        spans = ((each.address, each.size) for each in image.sections if each.flags & _EXECUTABLE and each.size)
        return tuple((start, self._session.read(start, size)) for start, size in spans)

    @property
    def pieces(self) -> tuple[tuple[int, bytes], ...]:
        """Address and bytes of each section of it."""
        return self._kept or self._read()


def _collect(
    session: Session,
    backend: str,
    cmdline: str,
    stop: Stop,
    witness: Witness,
    text: PatchedText,
) -> KernelRun:
    machine, platform = session.machine, session.platform
    console = platform.console.decode(errors="replace")
    passed = {name: each.ns for name, each in session.points.passed.items()}
    return KernelRun(
        guest=session.kernel,
        backend=backend,
        cmdline=cmdline,
        stop=stop,
        done=came_to_its_end(session.kernel, console, stop.reason, passed),
        console=console,
        faults=tuple(witness.faults),
        events=machine.log.events,
        history=tuple(session.switches),
        rip=machine.vcpus[0].rip,
        text=text.pieces,
        gates={},
        messages=tuple(platform.messages),
        passed=passed,
        sites=session.table.sites if session.table is not None else (),
    )
