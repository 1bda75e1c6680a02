"""A machine as its own parts see it: memory, clock, log and the platform, and what they may ask of the whole."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import TYPE_CHECKING

from pvops_core.closing import Closing
from pvops_core.errors import MachineError
from pvops_core.machine.cpu.model.features import ENGINE
from pvops_core.machine.engines import context_layout
from pvops_core.machine.handler import Waker
from pvops_core.machine.memory import PhysicalMemory
from pvops_core.machine.run.clock import Clock
from pvops_core.machine.run.eventlog import EventLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.kinds import MachineKind
    from pvops_core.machine.cpu.model.identity import CpuIdentity
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.handler import Observer, ServedMsr, TrapHandler


def _unseen(_vcpu: int, _what: int | str) -> None:
    """Nobody looks."""


def _unmarked(_vcpu: Vcpu, _number: int) -> None:
    """Nobody counts."""


class MachineBase(Closing):
    """What the parts of a machine are built on. ``Machine`` is the whole, with vCPUs and run loop."""

    vcpus: tuple[Vcpu, ...]

    def __init__(self, kind: MachineKind, memory: int, *, seed: int, count_instructions: bool) -> None:
        self.kind = kind
        self.seed = seed
        self.layout = context_layout()
        self.memory = PhysicalMemory(memory)
        self.count_instructions = count_instructions
        self.clock = Clock()
        self.log = EventLog(self.clock)
        self.counts: Counter[str] = Counter()
        self.served_msrs: dict[int, ServedMsr] = {}
        self.features = ENGINE
        self.identity: CpuIdentity | None = None
        self._platform: TrapHandler | None = None
        self._observers: tuple[Observer, ...] = ()
        self.marked: Callable[[Vcpu, int], None] = _unmarked
        self.flushed: Callable[[int, int | str], None] = _unseen  # vCPU, and an address, the present "space", or "all"

    @property
    def platform(self) -> TrapHandler:
        """Who answers traps; MachineError if nobody is attached."""
        if self._platform is None:
            raise MachineError("no platform is attached")
        return self._platform

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """Give the guest an exception, as :meth:`TrapHandler.exception` has it: observers are told, then the platform.

        Whoever raises one for the guest does it here: the CPU, and Python code that stands for an instruction.
        """
        # All are asked, also when one has answered already: each keeps its own account.
        answered = [observer(vcpu, vector, error_code, address) for observer in self._observers]
        if True not in answered:
            self.platform.exception(vcpu, vector, error_code, address)

    def observe(self, observer: Observer) -> None:
        """Tell ``observer`` of every exception from now on, before the platform; the newest is told first.

        Any number may observe. Observers belong to the machine and not to its snapshots.
        """
        if observer not in self._observers:
            self._observers = (observer, *self._observers)

    def ignore(self, observer: Observer) -> None:
        """End ``observe``."""
        self._observers = tuple(each for each in self._observers if each != observer)

    def rouse(self, vcpu: Vcpu) -> None:
        """End a vCPU's sleep before anything has happened, as ``hlt`` may."""
        if not vcpu.halted:
            return
        if isinstance(self.platform, Waker):
            self.platform.rouse(vcpu)
        else:
            vcpu.wake()

    @abstractmethod
    def stop(self, reason: str, detail: str = "") -> None:
        """End the run once the present handler has returned."""

    @abstractmethod
    def interrupt(self) -> None:
        """End the present slice when the handler returns."""

    @abstractmethod
    def defer(self, action: Callable[[], None]) -> None:
        """From a handler: run ``action`` when every vCPU is stopped and the handler has returned."""
