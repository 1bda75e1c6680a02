"""A machine with a real kernel in it and a backend's platform around it, ready to run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict, Unpack

from pvops_core.boot.hooks import OpHooks
from pvops_core.boot.payload_pages import FRAMES
from pvops_core.boot.points import POINTS, Passed, Points
from pvops_core.boot.returns import returns_of
from pvops_core.boot.slots import SlotWatch
from pvops_core.boot.symbols import find_symbol
from pvops_core.boot.table import RunningTable, find_running_table
from pvops_core.boot.text import ImageMemory
from pvops_core.closing import Closing
from pvops_core.errors import ImageError, MachineError, UsageError
from pvops_core.machine import Machine, Stop, Vcpu
from pvops_core.machine.watchdog import run_within, whereabouts
from pvops_core.patching.poke import Poker

if TYPE_CHECKING:
    from pvops_core.guest.linux import LinuxReturns
    from pvops_core.hookspecs import Backend, KernelPlatform
    from pvops_core.hookspecs.guest import Kernel
    from pvops_core.hookspecs.keyboard import Keyboard
    from pvops_core.kinds import MachineKind

DEFAULT_MEMORY = 256 << 20
SLICE_BLOCKS = 200_000
"""Mean length of a slice. The platform ends slices at its timers; more turns of the run loop than that are waste."""


class BootSettings(TypedDict, total=False):
    """Keyword arguments of a boot session, as :class:`BootSession` explains them."""

    vcpus: int
    seed: int
    memory: int
    options: Mapping[str, str]
    count_instructions: bool
    until: str
    stop_at: str
    keyboard: Keyboard
    livepatch: bool


class BootSession(Closing):
    """One kernel on one backend. A context manager; closing it frees the machine.

    Args:
        kernel: what is booted.
        backends: the backend in force, its base, its base's base.
        vcpus: how many virtual CPUs; 1 unless given.
        seed: decides everything that is not decided otherwise; 0 unless given.
        memory: the kernel's memory in bytes, rounded down to whole pages; 256 MiB unless given.
        options: options of the platform.
        count_instructions: count executed instructions exactly, at some cost; off unless given.
        until: end the run, for the reason "until", when this has been printed on the console.
        stop_at: end the run, for the reason "until", when a vCPU comes to this place, as for :meth:`run_to`.
        keyboard: what is typed at the console, before the run and while it goes on; nothing unless given.
        livepatch: the machine has memory for payloads besides, which the kernel does not know of; none unless given.

    Raises:
        UsageError: the backend cannot boot kernels, or not on this kind of machine.
        MachineError: the kernel does not fit into the machine.
        ImageError: the backend cannot boot this image.
    """

    machine: Machine
    platform: KernelPlatform
    image_memory: ImageMemory
    poker: Poker
    returns: LinuxReturns
    points: Points
    table: RunningTable | None
    slots: SlotWatch | None

    def __init__(self, kernel: Kernel, backends: tuple[Backend, ...], **settings: Unpack[BootSettings]) -> None:
        self.kernel = kernel
        platform = kernel_platform(kernel.kind, backends)
        memory = settings.get("memory", DEFAULT_MEMORY) & ~0xFFF
        self.livepatch = settings.get("livepatch", False)
        self.machine = Machine(
            kernel.kind,
            memory=platform.machine_memory(memory) + (FRAMES << 12 if self.livepatch else 0),
            vcpus=settings.get("vcpus", 1),
            seed=settings.get("seed", 0),
            count_instructions=settings.get("count_instructions", False),
            slice_blocks=SLICE_BLOCKS,
        )
        try:
            self.platform = platform(self.machine, kernel, {**settings.get("options", {}), "memory": str(memory)})
            self.platform.until = settings.get("until", "").encode()
            self.platform.keyboard = settings.get("keyboard") or self.platform.keyboard
            self.machine.attach(self.platform)
            self.platform.build()
            self.machine.watch(self.platform.read_keyboard)
            self.image_memory = ImageMemory(self.machine, self.platform, kernel.image)
            self.returns = returns_of(self)
            self.poker = Poker(self.machine, self.image_memory.machine_address, returns=self.returns)
            self.points = Points(self.machine, _symbols(kernel))
            self.table = find_running_table(self)
            self.slots = SlotWatch(self, self.table) if self.table else None
            if settings.get("stop_at"):
                self._stop_at(settings["stop_at"])
        except BaseException:
            self.machine.close()
            raise

    def run(self, *, max_ns: int | None = None, max_seconds: float | None = None) -> Stop:
        """Run the kernel until it powers off, crashes or is stopped.

        Args:
            max_ns: virtual nanoseconds after which it is stopped, if any.
            max_seconds: seconds of wall time after which it is stopped, if any. Such a run cannot be repeated
                exactly, and its end says where each vCPU was.
        """
        return run_within(self.machine, self.kernel.image.symbol_at, max_ns=max_ns, max_seconds=max_seconds)

    def run_to(self, place: str, *, max_ns: int | None = None, max_seconds: float | None = None) -> Vcpu:
        """Run the kernel until a vCPU is about to execute a function, at least one instruction from here on.

        Args:
            place: a symbol of the kernel's, or the name of one of :data:`~pvops_core.boot.points.POINTS`, which are
                met once.
            max_ns: as for :meth:`run`.
            max_seconds: as for :meth:`run`.

        Returns:
            The vCPU that stands there.

        Raises:
            UsageError: the kernel has no such symbol, or has met the point before.
            MachineError: the run ended before it came there.
        """
        arrived: list[Vcpu] = []
        forget = self._stop_at(place, arrived.append)
        try:
            stop = self.run(max_ns=max_ns, max_seconds=max_seconds)
        finally:
            forget()
        if not arrived:
            raise MachineError(f"the kernel did not come to {place}: {stop.reason} {stop.detail}".rstrip())
        return arrived[0]

    def once_at(self, place: str, action: Callable[[], None]) -> None:
        """Call ``action`` when a vCPU first comes to a place, as for :meth:`run_to`, with every vCPU stopped.

        Raises:
            UsageError: the kernel has no such symbol, or has met the point before.
        """
        forget: list[Callable[[], None]] = []

        def arrived(_vcpu: Vcpu) -> None:
            self.machine.defer(act)

        def act() -> None:
            if forget:
                forget.pop()()
                action()

        forget.append(self._when_at(place, arrived))

    def _stop_at(self, place: str, arrived: Callable[[Vcpu], None] = lambda _vcpu: None) -> Callable[[], None]:
        """Stop the machine, for the reason "until", when a vCPU comes to a place; gives what ends that."""

        def stop(vcpu: Vcpu) -> None:
            arrived(vcpu)
            self.machine.stop("until", f"vcpu {vcpu.index} came to {place}")

        return self._when_at(place, stop)

    def _when_at(self, place: str, arrived: Callable[[Vcpu], None]) -> Callable[[], None]:
        """Call ``arrived`` whenever a vCPU comes to a place; gives what ends that."""

        def at_point(passed: Passed, vcpu: Vcpu) -> None:
            if passed.name == place:
                arrived(vcpu)

        point = next((point for point in POINTS if point.name == place), None)
        address = find_symbol(self.kernel.image, *(point.symbols if point else (place,)))
        if point is None:
            breakpoint_ = self.machine.break_at(address, arrived)
            return lambda: self.machine.remove(breakpoint_)
        if place in self.points.passed:
            raise UsageError(f"the kernel has come by {place} before")
        self.points.listen(at_point)
        return lambda: self.points.ignore(at_point)

    @cached_property
    def hooks(self) -> OpHooks:
        """Python hooks in the kernel's ops; SwitchError if it has no table that is known here."""
        return OpHooks(self)

    def whereabouts(self) -> str:
        """Where each vCPU is, by symbol: "vcpu 0 at default_idle+0x13 (0xffffffff…), waiting"."""
        return whereabouts(self.machine, self.kernel.image.symbol_at)

    def text_sha256(self) -> str:
        """Hash of the kernel's text as it is in memory now: the image's section ``.text``.

        Raises:
            ImageError: the image has none.
        """
        section = self.kernel.image.section(".text")
        if section is None:
            raise self.kernel.image.error("has none", field=".text")
        return hashlib.sha256(self.image_memory.read(section.address, section.size)).hexdigest()

    def close(self) -> None:
        """Free the machine."""
        self.machine.close()


def _symbols(kernel: Kernel) -> Mapping[str, int]:
    """The kernel's symbols; none where they are damaged, without which it boots as well."""
    try:
        return kernel.image.symbols
    except ImageError:
        return {}


def kernel_platform(kind: MachineKind, backends: tuple[Backend, ...]) -> type[KernelPlatform]:
    """Who hosts a kernel of this kind: the first backend of a chain that has a platform of either sort.

    Raises:
        UsageError: that one cannot boot kernels, or is not this kind of machine.
    """
    owner = next((each for each in backends if each.platform or each.kernel_platform), None)
    if owner is None or owner.kernel_platform is None:
        raise UsageError(f"backend {backends[0].name!r} cannot boot kernel images")
    if kind not in owner.kinds:
        kinds = ", ".join(sorted(kind.value for kind in owner.kinds))
        raise UsageError(f"backend {owner.name!r} is no {kind.value} machine; it can be {kinds}")
    return owner.kernel_platform
