"""Who answers when the guest traps: the other half of a backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import attrs

from pvops_core.hookspecs.keyboard import Keyboard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pvops_core.hookspecs.guest import GuestImage, Kernel
    from pvops_core.machine import Machine, Vcpu


@attrs.frozen
class HypercallMade:
    """A hypercall that the platform has answered.

    Attributes:
        vcpu: index of the vCPU.
        name: the hypercall's.
        arguments: as the guest passed them, unsigned.
        result: 0 or more, or a negative errno; 0 where the hypercall has none.
        ns: virtual time when it was made.
        inner: it is an entry of a multicall, or was queued.
    """

    vcpu: int
    name: str
    arguments: tuple[int, ...]
    result: int
    ns: int
    inner: bool = False


class Surroundings(ABC):
    """What the platforms of the built-in guest and of real kernels have in common: traps, console, counters.

    The methods from ``exception`` on are those of the machine's ``TrapHandler``; a platform on bare metal inherits
    them from ``pvops_core.machine.BareMetal`` by naming that class first.

    Attributes:
        machine: the machine.
        options: the backend's own options, as text.
        hypercalls: how often each hypercall was made, by name.
        traps: how often each exception or trap was taken, by name.
        console: what the guest printed.
        page_table_updates: page-table entries written through the platform.
        flushes: TLB flushes asked of the platform.
        messages: what the platform itself said, as a hypervisor does on its own console: why it refused things. The
            last ones; it is the platform's to keep them few.
        observers: who is told of hypercalls; a platform that makes a note of one only for them looks here first.
    """

    def __init__(self, machine: Machine, options: Mapping[str, str]) -> None:
        self.machine = machine
        self.options = options
        self.hypercalls: Counter[str] = Counter()
        self.traps: Counter[str] = Counter()
        self.console = bytearray()
        self.page_table_updates = 0
        self.flushes = 0
        self.messages: list[str] = []
        self.observers: tuple[Callable[[HypercallMade], None], ...] = ()

    def observe(self, observer: Callable[[HypercallMade], None]) -> None:
        """Tell ``observer`` of each hypercall that has been made, those of a multicall before the multicall itself.

        Any number may look. Observers belong to the platform and not to snapshots of its machine.
        """
        if observer not in self.observers:
            self.observers = (*self.observers, observer)

    def ignore(self, observer: Callable[[HypercallMade], None]) -> None:
        """End ``observe``."""
        self.observers = tuple(each for each in self.observers if each != observer)

    def tell(self, made: HypercallMade) -> None:
        """The platform has answered a hypercall: tell the observers."""
        for observer in self.observers:
            observer(made)

    @staticmethod
    def machine_memory(guest_memory: int) -> int:
        """Bytes of machine memory that a guest of ``guest_memory`` bytes needs, what the platform keeps included."""
        return guest_memory

    @abstractmethod
    def build(self) -> None:
        """Load the guest, make its first page tables and boot information, and put the vCPUs at its entry.

        Raises:
            MachineError: it does not fit into the machine.
        """

    def machine_address(self, pa: int) -> int:
        """The machine-physical address of a guest-physical one; the same unless the platform translates."""
        return pa

    @abstractmethod
    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """The guest faulted.

        Args:
            vcpu: the vCPU, with RIP at the instruction.
            vector: 0 to 31.
            error_code: as the processor gives it; None for vectors that have none.
            address: the linear address of a page fault, else None.
        """

    @abstractmethod
    def software_interrupt(self, vcpu: Vcpu, vector: int) -> None:
        """The guest executed ``int``; RIP is after it."""

    @abstractmethod
    def syscall(self, vcpu: Vcpu) -> None:
        """The guest executed ``syscall``; RIP is after it, and the guest goes on where the handler leaves RIP."""

    @abstractmethod
    def sysenter(self, vcpu: Vcpu) -> None:
        """The guest executed ``sysenter``; RIP is after it, and the guest goes on where the handler leaves RIP."""

    @abstractmethod
    def cpuid(self, vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Answer ``cpuid`` with EAX, EBX, ECX and EDX."""

    @abstractmethod
    def io_in(self, vcpu: Vcpu, port: int, size: int) -> int:
        """Answer a read of an I/O port of 1, 2 or 4 bytes."""

    @abstractmethod
    def io_out(self, vcpu: Vcpu, port: int, size: int, value: int) -> None:
        """Take a write to an I/O port of 1, 2 or 4 bytes."""

    @abstractmethod
    def privileged(self, vcpu: Vcpu, name: str, *operands: int) -> int | None:
        """Answer a privileged instruction that the guest's ring does not allow, or raise GuestFault (vector 13).

        Args:
            vcpu: the vCPU.
            name: the method of ``vcpu.insn`` that it amounts to.
            *operands: that method's arguments.
        """

    @abstractmethod
    def halted(self, vcpu: Vcpu) -> None:
        """The guest executed ``hlt``."""

    @abstractmethod
    def before_entry(self, vcpu: Vcpu) -> None:
        """Called before every time slice: deliver what is pending here."""

    @abstractmethod
    def idle(self) -> bool:
        """Every vCPU is halted: move the clock to the next event and give True, or False if there is none."""


class Platform(Surroundings):
    """Surroundings of the built-in guest.

    Attributes:
        guest: what is loaded into the machine.
        features: numbers of the CPU features that ALTERNATIVE entries of the guest see as present; set before
            ``build``.
    """

    def __init__(self, machine: Machine, guest: GuestImage, options: Mapping[str, str]) -> None:
        super().__init__(machine, options)
        self.guest = guest
        self.features: frozenset[int] = frozenset()


class KernelPlatform(Surroundings):
    """Surroundings of a real kernel, which patches itself and fills its own table of ops.

    Attributes:
        console_name: what a kernel calls the console that this platform serves (``console=ttyS0``); a comparison adds
            that word to a command line that names no console. Empty where there is nothing to add.
        kernel: what is booted.
        until: the run ends, for the reason "until", when the console's text has just come to end in this; empty
            for never.
        keyboard: what is typed at the console waits there.
    """

    console_name: ClassVar[str] = ""

    def __init__(self, machine: Machine, kernel: Kernel, options: Mapping[str, str]) -> None:
        super().__init__(machine, options)
        self.kernel = kernel
        self.until = b""
        self.keyboard = Keyboard()

    def spare_frames(self, count: int) -> list[int]:
        """Physical addresses of frames for a tool's use: the machine has them and the guest does not know of them.

        Here those behind the guest's memory. They are given once.
        """
        start = int(self.options["memory"])
        return [start + (number << 12) for number in range(count)]

    def write_entry(self, address: int, value: int, size: int) -> None:
        """Store an entry of ``size`` bytes into a page table of the guest's, at a physical address.

        Raises:
            MachineError: the platform, which rules over page tables, does not take it.
        """
        self.machine.memory.write(address, value.to_bytes(size, "little"))

    def emit(self, text: bytes) -> None:
        """Put what the guest printed on its console there, a byte at a time or more."""
        for byte in text:
            self.console.append(byte)
            if self.until and byte == self.until[-1] and self.console.endswith(self.until):
                self.machine.stop("until", "the console says what was waited for")

    def typed(self, data: bytes) -> None:
        """What was typed at the console arrives, between two slices; dropped unless the platform has a device."""

    def read_keyboard(self) -> None:
        """Give what was typed since the last time to ``typed``, and note it in the event log."""
        data = self.keyboard.take()
        if data:
            self.machine.log.record("typed", data=data)
            self.typed(data)

    def wait_for_typing(self) -> bool:
        """For ``idle``, when no timer is left: wait until what somebody types wakes a vCPU; False if nothing will."""
        loop, vcpus = self.machine.loop, self.machine.vcpus
        while self.keyboard.wait(lambda: loop.interrupted):
            self.read_keyboard()
            if any(vcpu.runnable for vcpu in vcpus):
                return True
        return loop.interrupted
