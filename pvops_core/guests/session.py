"""A machine, a guest and a backend, assembled and ready to run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, TypedDict, Unpack

from pvops_core.closing import Closing
from pvops_core.errors import MachineError, UsageError, unknown
from pvops_core.guests.builtin import builtin, parse_report
from pvops_core.hookspecs import Backend, Environment, Platform
from pvops_core.machine import GuestFault, Machine, Stop, Vcpu
from pvops_core.machine.watchdog import run_within
from pvops_core.ops import LAYOUTS
from pvops_core.patching.alternatives import FEATURES, Padding
from pvops_core.patching.disasm import instruction_lengths
from pvops_core.patching.poke import Poker
from pvops_core.plugins import chain
from pvops_core.switchboard import Switchboard
from pvops_core.switchboard.alternatives import SiteAlternatives
from pvops_core.switchboard.gates import Entrances
from pvops_core.switchboard.implementations import Bound
from pvops_core.switchboard.sitebook import SiteBook
from pvops_core.switchboard.text import Text

if TYPE_CHECKING:
    from pvops_core.guests.report import Report
    from pvops_core.hookspecs.guest import GuestImage


class Settings(TypedDict, total=False):
    """Keyword arguments of a session, as :class:`Session` explains them."""

    vcpus: int
    seed: int
    memory: int
    cmdline: str
    options: Mapping[str, str]
    count_instructions: bool


class Session(Closing):
    """One guest on one backend. A context manager; closing it frees the machine.

    Args:
        guest: what to run.
        backends: the backend in force, its base, its base's base.
        vcpus: how many virtual CPUs; 1 unless given.
        seed: decides everything that is not decided otherwise; 0 unless given.
        memory: guest memory in bytes; 16 MiB unless given.
        cmdline: the guest's command line.
        options: options of the platform.
        count_instructions: count executed instructions exactly, at some cost; off unless given.

    Raises:
        UsageError: the backend has no platform, or not this kind of machine.
        MachineError: the guest does not fit into the machine.
        PluginError: the backend's ops do not fit their specifications.
    """

    machine: Machine
    platform: Platform
    switchboard: Switchboard

    def __init__(
        self,
        guest: GuestImage,
        backends: tuple[Backend, ...],
        **settings: Unpack[Settings],
    ) -> None:
        self.guest = guest
        self.layout = LAYOUTS[guest.layout]
        platform = _platform(guest, backends)
        memory = settings.get("memory", 16 << 20)
        self.machine = Machine(
            guest.kind,
            memory=platform.machine_memory(memory),
            vcpus=settings.get("vcpus", 1),
            seed=settings.get("seed", 0),
            count_instructions=settings.get("count_instructions", False),
        )
        options = {**settings.get("options", {}), "cmdline": settings.get("cmdline", ""), "memory": str(memory)}
        try:
            self._assemble(platform, backends, options)
        except BaseException:
            self.machine.close()
            raise

    @classmethod
    def builtin(
        cls, layout: str, backend: str, *, backends: Mapping[str, Backend], **settings: Unpack[Settings]
    ) -> Session:
        """The built-in guest of a layout on a backend, by its name among ``backends``; the rest as for the class."""
        if backend not in backends:
            raise unknown("backend", backend, sorted(backends))
        return cls(builtin(layout), chain(backends[backend], backends), **settings)

    def _assemble(self, platform: type[Platform], backends: tuple[Backend, ...], options: Mapping[str, str]) -> None:
        guest, machine = self.guest, self.machine
        self.platform = platform(machine, guest, options)
        machine.attach(self.platform)
        gates = machine.gates
        gates.map(guest.gates_address, guest.gate_count)
        environment = Environment(
            machine=machine,
            layout=self.layout,
            platform=self.platform,
            symbols=guest.symbols,
            switch=lambda op, implementation, by: self.switchboard.switch(op, implementation, by=by),
        )
        bound = [Bound(backend, backend.ops(environment) if backend.ops else None) for backend in backends]
        self.switchboard = Switchboard(
            machine,
            self._text(),
            bound,
            Poker(machine, self._text_address),
            Entrances(gates, guest.gate_count),
            self._fault,
            self._forced(backends),
        )
        self.platform.features = self.switchboard.features()
        self.platform.build()
        self.switchboard.install()

    def _text(self) -> Text:
        guest = self.guest
        read, nops = guest.image.read, cache(guest.nops)
        padding = Padding(nops, partial(instruction_lengths, bits=guest.kind.bits))
        return Text(
            layout=self.layout,
            symbols=guest.symbols,
            sites=SiteBook(self.layout, guest.sites, read),
            alternatives=SiteAlternatives.of(guest.alternatives, read, padding),
            nops=nops,
        )

    def _forced(self, backends: tuple[Backend, ...]) -> frozenset[int]:
        fill = next((backend.kernel for backend in backends if backend.kernel is not None), None)
        names = fill.features(self.guest.image, len(self.machine.vcpus)) if fill else frozenset()
        return frozenset(FEATURES[name] for name in names)

    def _text_address(self, va: int) -> int:
        """Machine-physical address of a byte of the guest's image, given its virtual address."""
        if va < self.guest.kernel_base:
            raise MachineError(f"{va:#x} is below the kernel's image")
        return self.platform.machine_address(va - self.guest.kernel_base)

    def _fault(self, vcpu: Vcpu, fault: GuestFault) -> None:
        self.machine.exception(vcpu, fault.vector, fault.error_code, fault.address)

    def run(self, *, max_ns: int | None = None, max_seconds: float | None = None) -> Stop:
        """Run the guest until it powers off, crashes or is stopped.

        Args:
            max_ns: virtual nanoseconds after which it is stopped, if any.
            max_seconds: seconds of wall time after which it is stopped, if any. Such a run cannot be repeated
                exactly, and its end says where each vCPU was.
        """
        return run_within(self.machine, self.guest.image.symbol_at, max_ns=max_ns, max_seconds=max_seconds)

    def report(self) -> Report:
        """What the guest wrote into its report."""
        return parse_report(self.guest, self.read)

    def read(self, va: int, length: int) -> bytes:
        """Bytes of the guest's image, as they are in memory now."""
        return b"".join(
            self.machine.memory.read(self._text_address(va + done), min(0x1000 - (va + done) % 0x1000, length - done))
            for done in _pieces(va, length)
        )

    def text_sha256(self) -> str:
        """Hash of the guest's text as it is now."""
        start, end = self.guest.text_range
        return hashlib.sha256(self.read(start, end - start)).hexdigest()

    def close(self) -> None:
        """Free the machine."""
        self.machine.close()


def _pieces(va: int, length: int) -> list[int]:
    """Offsets from ``va`` at which a new page begins, the first being 0."""
    return [0, *range(0x1000 - va % 0x1000, length, 0x1000)]


def _platform(guest: GuestImage, backends: tuple[Backend, ...]) -> type[Platform]:
    owner = next((backend for backend in backends if backend.platform is not None), None)
    if owner is None or owner.platform is None:
        raise UsageError(f"backend {backends[0].name} has no platform, and neither have those it is based on")
    if guest.kind not in owner.kinds:
        kinds = ", ".join(sorted(kind.value for kind in owner.kinds))
        raise UsageError(f"backend {owner.name} is no {guest.kind.value} machine; it can be {kinds}")
    return owner.platform
