"""Who answers when the guest traps: the other half of a backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from pvops_core.backends.hypercalls import COST_NS, ENOSYS, Served, checked, fitted, table_of
from pvops_core.backends.keyboard import Keyboard
from pvops_core.backends.settings import Settings
from pvops_core.errors import unknown
from pvops_core.machine import GuestFault
from pvops_core.machine.handler import TrapHandler
from pvops_core.machine.run.eventkinds import event_kind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pvops_core.guest import Guest
    from pvops_core.kinds import MachineKind
    from pvops_core.machine import Machine, Vcpu

_TYPED: Final = event_kind(
    "typed",
    "Bytes were given to the console as if typed.",
    data="bytes: what was typed",
)
_HYPERCALL: Final = event_kind(
    "hypercall",
    "A hypercall has been answered, on a platform whose methods are marked as serving them.",
    name="str: what it is called, or its number in hex where nobody serves it",
    result="int: 0 or more, or a negative errno",
    arg1="int: its first argument; arg2 and so on are the others that are looked at",
)


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
        operations: what arrays in the guest's memory told it, an operation a tuple, of words that count.
    """

    vcpu: int
    name: str
    arguments: tuple[int, ...]
    result: int
    ns: int
    inner: bool = False
    operations: tuple[tuple[int, ...], ...] = ()


Loader = Callable[[Any], None]
"""Puts a platform's guest into its machine: called with the platform."""


class Platform(TrapHandler):
    """Who answers the guest's traps, keeps its console and counts.

    Methods that :func:`hypercall` marks serve hypercalls.

    Its remaining methods are those of :class:`~pvops_core.machine.handler.TrapHandler`; a platform on bare metal
    inherits them from ``pvops_core.machine.BareMetal`` by naming that class first.

    Attributes:
        loaders: by boot protocol of a guest, what loads it here. A platform has no guests but these.
        more_kinds: by boot protocol, kinds of machine that its guests may be on besides those of its backend.
        settings_class: its settings, each with type, default, range and help.
        console_name: what a kernel calls the console that this platform serves (``console=ttyS0``); a comparison adds
            that word to a command line that names no console. Empty where there is nothing to add.
        no_hypercall: the result of a hypercall that nobody serves.
        machine: the machine.
        guest: what is loaded into it.
        settings: the settings' values.
        features: numbers of the CPU features that ALTERNATIVE entries of the built-in guest see as present; set before
            ``build``.
        hypercalls: how often each hypercall was made, by name.
        traps: how often each exception or trap was taken, by name.
        console: what the guest printed.
        until: the run ends, for the reason "until", when the console's text has just come to end in this; empty
            for never.
        keyboard: what is typed at the console waits there.
        page_table_updates: page-table entries written through the platform.
        flushes: TLB flushes asked of the platform.
        messages: what the platform itself said, as a hypervisor does on its own console: why it refused things. The
            last ones; it is the platform's to keep them few.
        observers: who is told of hypercalls; a platform that makes a note of one only for them looks here first.
    """

    loaders: ClassVar[Mapping[str, Loader]] = {}
    more_kinds: ClassVar[Mapping[str, frozenset[MachineKind]]] = {}
    settings_class: ClassVar[type[Settings]] = Settings
    console_name: ClassVar[str] = ""
    no_hypercall: ClassVar[int] = -ENOSYS
    _served: ClassVar[Mapping[int | str, Served]] = {}

    def __init__(self, machine: Machine, guest: Guest, settings: Settings | None = None) -> None:
        self.machine = machine
        self.guest = guest
        self.settings = settings or self.settings_class()
        self.features: frozenset[int] = frozenset()
        self.hypercalls: Counter[str] = Counter()
        self.traps: Counter[str] = Counter()
        self.console = bytearray()
        self.until = b""
        self.keyboard = Keyboard()
        self.page_table_updates = 0
        self.flushes = 0
        self.messages: list[str] = []
        self.observers: tuple[Callable[[HypercallMade], None], ...] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._served = table_of(cls)

    def hypercall(self, vcpu: Vcpu, nr: Any, *args: int) -> int:  # noqa: ANN401 - a number, or a name
        """Make a hypercall: for a hook that acts for the guest's kernel, or for guest code that asked for it.

        It is counted, takes its virtual time, is served by the method that :func:`hypercall` marks, gets into the event
        log, and observers are told. A number that nobody serves has the result ``no_hypercall``.

        Args:
            vcpu: the calling vCPU.
            nr: its number, or its name.
            *args: its arguments in order: by name as many as its method takes; by number those not given are 0.

        Returns:
            0 or more, or a negative errno.

        Raises:
            UsageError: nobody serves that name.
            TypeError: the method that serves it gave no number, or takes more or fewer arguments than a name came with.
        """
        if isinstance(nr, str) and nr not in self._served:
            raise unknown("hypercall", nr, [name for name in self._served if isinstance(name, str)])
        known, began = self._served.get(nr), self.machine.clock.ns
        if known and isinstance(nr, str):
            checked(self, known, args)
        name = known.name if known else f"{nr:#x}"
        self.hypercalls[name] += 1
        self.machine.clock.advance(known.ns if known else COST_NS)
        taken = fitted(known.serve, args) if known else args
        result = known.serve(self, vcpu, *taken) if known else self.no_hypercall
        if not isinstance(result, int):
            raise TypeError(f"{type(self).__name__} served hypercall {name} by {result!r}, which is no number")
        fields = {f"arg{number}": value for number, value in enumerate(taken, 1)}
        self.machine.log.record(_HYPERCALL, vcpu.index, name=name, result=result, **fields)
        self.tell(HypercallMade(vcpu.index, name, args, result, began))
        return result

    def fetched(self, vcpu: Vcpu, length: int) -> bytes:
        """Bytes of the instruction that a vCPU is at, as it has fetched them; fewer at the end of what is mapped.

        With it a platform knows an instruction of its own, such as ``vmcall``, that has ended in #UD or #GP.
        """
        for size in range(length, 0, -1):
            try:
                return vcpu.virtual.read(vcpu.rip, size, system=True)  # it was fetched, so whoever runs may
            except GuestFault:
                continue
        return b""

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

    @property
    def guest_memory(self) -> int:
        """Bytes of the guest's memory."""
        return self.settings.memory or self.machine.memory.size

    def build(self) -> None:
        """Load the guest, make its first page tables and boot information, and put the vCPUs at its entry.

        Raises:
            MachineError: it does not fit into the machine.
            ImageError: its image says that it cannot be loaded here.
        """
        self.loaders[self.guest.boot_protocol](self)

    def machine_address(self, pa: int) -> int:
        """The machine-physical address of a guest-physical one; the same unless the platform translates."""
        return pa

    def ram(self) -> Sequence[tuple[int, int]]:
        """Begin and end of each stretch of memory that the guest has, guest-physical and ascending, whole pages."""
        return [(0, self.guest_memory)]

    def ram_contents(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """What of that memory may be other than zero: guest-physical address and bytes of each piece, whole pages.

        Entries of page tables name guest-physical frames, whatever they name in the machine.
        """
        for first, last in self.machine.memory.touched():
            if first < self.guest_memory:
                yield first, self.machine.memory.array[first : min(last, self.guest_memory)]

    def spare_frames(self, count: int) -> list[int]:
        """Physical addresses of frames for a tool's use: the machine has them and the guest does not know of them.

        Here those behind the guest's memory. They are given once.
        """
        start = self.guest_memory
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

    def sleep_until(self, ns: int) -> None:
        """For ``idle``: move the clock to the next event, or no further than the run is to go.

        What comes at an event is found by whoever looks at the clock; ``idle`` is called again in the next run, and
        after a key that came before it.
        """
        clock, deadline = self.machine.clock, self.machine.loop.deadline
        until = min(ns, ns if deadline is None else deadline)
        if until > clock.ns:
            clock.advance(self.keyboard.sleep(clock.ns, until) - clock.ns)

    def typed(self, data: bytes) -> None:
        """What was typed at the console arrives, between two slices; dropped unless the platform has a device."""

    def read_keyboard(self) -> None:
        """Give what was typed since the last time to ``typed``, and note it in the event log."""
        stroke = self.keyboard.take(self.machine.clock.ns)
        if stroke is None:
            return
        if stroke.typed:
            self.machine.log.record(_TYPED, data=stroke.typed)
            self.typed(stroke.typed)
        if stroke.leaving:
            self.machine.stop("ended", stroke.leaving)
        elif stroke.asking:
            self.machine.stop("asked", "whoever types asks for a prompt")

    def wait_for_typing(self) -> bool:
        """For ``idle``, when no timer is left: wait until what somebody types wakes a vCPU; False if nothing will."""
        loop, vcpus = self.machine.loop, self.machine.vcpus
        while self.keyboard.wait(self.machine.clock.ns, lambda: loop.leaving):
            self.read_keyboard()
            if loop.interrupted or any(vcpu.runnable for vcpu in vcpus):
                return True
        return loop.leaving
