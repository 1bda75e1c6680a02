"""The lguest host as a platform: the guest's kernel in ring 1, its user mode in ring 3, the host in Python."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.backends import Platform
from pvops_core.errors import MachineError, UsageError
from pvops_core.kinds import MachineKind
from pvops_core.machine import general_protection
from pvops_core.machine.cpu.model.cpuid import cpuid
from pvops_core.machine.cpu.model.cpumodel import cpu_features, cpu_identity
from pvops_core.machine.run.eventkinds import event_kind
from pvops_lguest.host import builder, costs
from pvops_lguest.host.abi import TRAP_ENTRY, VMCALL, Call
from pvops_lguest.host.data import INTERRUPT_FLAG
from pvops_lguest.host.hypercalls import CR0_TS, Hypercalls
from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import VirtualGuestMemory
from pvops_lguest.host.segments import GUEST_PL
from pvops_lguest.host.state import SavedHost  # noqa: TC001 - states are read by their types
from pvops_lguest.host.traps import DEVICE_NOT_AVAILABLE, GENERAL_PROTECTION, PAGE_FAULT, Gate, name_of
from pvops_lguest.launcher.load import load_kernel
from pvops_lguest.livepatching import LguestCallsIn

if TYPE_CHECKING:
    from pvops_core.guest import Guest
    from pvops_core.machine import Machine, Vcpu

_HYPERCALL: Final = event_kind(
    "hypercall",
    "The guest made a hypercall.",
    name="str: its name",
    queued="int: 1 if it came by the ring",
    arg1="int: its first argument; arg2 and so on are the others",
)
_GUEST_END: Final = event_kind(
    "guest end",
    "The host ended the guest.",
    outcome="str: how",
    reason="str: the host's words",
)
_TRAP: Final = event_kind(
    "trap",
    "A trap was reflected to the guest.",
    vector="int: 0 to 31",
    error="int: the error code, 0 for none",
    address="int: of a page fault, else 0",
)
_INTERRUPT: Final = event_kind(
    "interrupt",
    "An interrupt was delivered.",
    handler="int: where",
)

INVALID_OPCODE = 6
_INT3 = 0xCC
_INTO = 0xCE

# Counted as such for the statistics of a run; NEW_PGTABLE changes no entry.
_PAGE_TABLE_CALLS = frozenset({Call.SET_PTE, Call.SET_PMD, Call.SET_PGD})
_FLUSH_CALLS = frozenset({Call.FLUSH_TLB})


class LguestState(NamedTuple):
    """The host in a snapshot.

    Attributes:
        host: what it knows of the guest.
        chance: the generator that chooses what a shadow loses.
        counts: hypercalls, traps and batched calls, by name.
        sums: page-table updates, flushes, shadow fills.
        end: how the guest has ended, and what it said.
    """

    host: SavedHost
    chance: tuple[int, tuple[int, ...], float | None]
    counts: tuple[dict[str, int], dict[str, int], dict[str, int]]
    sums: tuple[int, int, int]
    end: tuple[str, str] | None


class LguestPlatform(LguestCallsIn, Platform):
    """One lguest guest and its host.

    Attributes:
        state: everything the host knows of the guest.
        batched: hypercalls taken from the ring, by name; they are in ``hypercalls`` too.
        shadow_fills: page faults that only filled the shadow tables.
    """

    console_name = "hvc0"
    loaders = {"builtin": builder.load_builtin, "kernel": load_kernel}  # noqa: RUF012 - as ClassVar in the base
    more_kinds = {"kernel": frozenset({MachineKind.PAE})}  # noqa: RUF012 - likewise
    settings_class = builder.LguestSettings
    settings: builder.LguestSettings

    def __init__(self, machine: Machine, guest: Guest, settings: builder.LguestSettings | None = None) -> None:
        """Divide the machine's memory between guest and host.

        Raises:
            UsageError: the machine is not a 32-bit one with one vCPU.
            MachineError: there is too little memory.
        """
        super().__init__(machine, guest, settings)
        if machine.kind is not MachineKind.I386 and machine.kind not in self.more_kinds.get(guest.boot_protocol, ()):
            raise UsageError(f"lguest runs i386 guests, with PAE kernels of 2.6.31 and later, not {machine.kind.value}")
        if len(machine.vcpus) != 1:
            raise UsageError(f"an lguest guest has one vCPU, not {len(machine.vcpus)}")
        machine.features = cpu_features(self.settings.cpu)
        machine.identity = cpu_identity(self.settings.cpu)
        self.batched: Counter[str] = Counter()
        self.shadow_fills = 0
        self._end: tuple[str, str] | None = None
        self._random = random.Random(f"lguest {machine.seed}")  # noqa: S311 - replacement, not a secret
        self.state = builder.make_state(
            machine, guest, self.settings, (self.console, self.emit), self._random.randrange
        )
        self._calls = Hypercalls(self.state, self._observe, self.tell)
        self._virtual = VirtualGuestMemory(self.state.memory, self.state.shadow.guest_pa)
        machine.keep(self)

    @staticmethod
    def machine_memory(guest_ram: int) -> int:
        """Bytes that the machine must have for a guest of ``guest_ram`` bytes: the host needs some for its tables."""
        return guest_ram + builder.DEVICE_AREA + builder.HOST_AREA

    def spare_frames(self, count: int) -> list[int]:
        """Frames behind the pages of devices."""
        start = self.state.ram + builder.DEVICE_AREA
        return [start + (number << 12) for number in range(count)]

    # Hypercalls

    def hypercall(self, vcpu: Vcpu, nr: int, *args: int) -> int:
        """A hypercall by Python code that acts for the guest's kernel: the same way as ``int $0x1f``.

        Args:
            vcpu: the calling vCPU.
            nr: the call number, as the guest's ABI has it.
            *args: its arguments in order, 32 bit each; those not given are 0.

        Returns:
            eax as the guest would find it: the call's result, or ``nr`` where it has none.

        Raises:
            UsageError: more arguments than the ABI carries.
        """
        abi = self.state.abi
        if len(args) > abi.arguments:
            raise UsageError(f"an lguest {abi.name} hypercall has {abi.arguments} arguments, not {len(args)}")
        arguments = [arg & 0xFFFFFFFF for arg in args] + [0] * (abi.arguments - len(args))
        result: int | None = None
        if self._end is not None:
            # An op that makes many calls was killed by an earlier one.
            return nr
        with self._guest_may_end(vcpu):
            self.machine.clock.advance(costs.HOST_TRIP_NS)
            result = self._calls.enter(vcpu, nr, arguments)
            data = self.state.data
            # The host delivers interrupts on its way back from a hypercall, so the vCPU must come out here.
            if data is not None and self.state.interrupts.ready(data):
                vcpu.cut_short()
        return nr if result is None else result

    def number(self, call: Call) -> int:
        """The number of a hypercall in the guest's ABI.

        Raises:
            UsageError: the ABI does not have it.
        """
        try:
            return self.state.abi.numbers[call]
        except KeyError:
            raise UsageError(f"lguest {self.state.abi.name} has no hypercall {call.value}") from None

    def _observe(self, vcpu: Vcpu, call: Call, arguments: Sequence[int], queued: bool) -> None:  # noqa: FBT001 - a callback
        self.hypercalls[call.value] += 1
        if queued:
            self.batched[call.value] += 1
            self.machine.clock.advance(costs.QUEUED_CALL_NS)
        if call in _PAGE_TABLE_CALLS:
            self.page_table_updates += 1
        if call in _FLUSH_CALLS:
            self.flushes += 1
        fields = {f"arg{index}": value for index, value in enumerate(arguments, 1)}
        self.machine.log.record(_HYPERCALL, vcpu.index, name=call.value, queued=int(queued), **fields)

    @contextlib.contextmanager
    def _guest_may_end(self, vcpu: Vcpu) -> Iterator[None]:
        try:
            yield
        except GuestKilledError as end:
            self.machine.log.record(_GUEST_END, vcpu.index, outcome=end.outcome, reason=end.message)
            self._end = (end.outcome, end.message)
            self.machine.stop(*self._end)

    # Traps

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """Repair what only the shadows lacked, do what the host does for the guest, hand the rest to its handlers."""
        self.traps[name_of(vector)] += 1
        with self._guest_may_end(vcpu):
            if vector == PAGE_FAULT and self.demand(address or 0, error_code or 0):
                return
            if vector == INVALID_OPCODE and self._is_hypercall(vcpu):
                # Trap 6 is a fault, so EIP still points at the vmcall (SDM volume 3, 6.5).
                vcpu.rip += len(VMCALL)
                self._hypercall_from(vcpu)
                return
            if vector == DEVICE_NOT_AVAILABLE and not self.state.ts:
                # The guest did not ask for this one: the host restores the FPU's state on its own.
                vcpu.cr0 &= ~CR0_TS
                return
            self._reflect(vcpu, vector, error_code, address)

    def demand(self, address: int, error_code: int) -> bool:
        """Fill the shadow tables for an access that faulted.

        Args:
            address: guest-virtual.
            error_code: the page fault's.

        Returns:
            False if the guest's own tables do not allow it.
        """
        if not self.state.shadow.demand(address, error_code):
            return False
        self.shadow_fills += 1
        self.machine.clock.advance(costs.HOST_TRIP_NS)
        return True

    def _reflect(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        state = self.state
        self.machine.log.record(_TRAP, vcpu.index, vector=vector, error=error_code or 0, address=address or 0)
        direct = state.traps.direct(vector)
        if direct is not None:
            self._enter(vcpu, direct, state.traps.error_code(vector, error_code), reflected=False)
            return
        if vector == PAGE_FAULT and state.data is not None:
            # CR2 before the handler, which reads it from the shared page.
            state.data.set_cr2(address or 0)
        gate = state.traps.gate(vector)
        if gate is None:
            detail = address if vector == PAGE_FAULT else error_code
            raise GuestKilledError(f"unhandled trap {vector} at {vcpu.rip:#x} ({detail or 0:#x})", vcpu.index, vcpu.rip)
        self._enter(vcpu, gate, state.traps.error_code(vector, error_code), reflected=True)

    def _enter(self, vcpu: Vcpu, gate: Gate, error_code: int | None, *, reflected: bool) -> None:
        self.machine.clock.advance(costs.HOST_TRIP_NS if reflected else costs.DIRECT_TRAP_NS)
        data = self.state.data if reflected else None
        # Direct traps cost no trip and do not look at irq_enabled: the CPU knows nothing of that word.
        self.state.traps.enter(vcpu, gate, self._virtual, error_code=error_code, data=data)

    def software_interrupt(self, vcpu: Vcpu, vector: int) -> None:
        """``int n``: a hypercall, a system call, or whatever gate the guest opened to that ring."""
        if vcpu.cpl > self.state.traps.software_level(vector):
            self.traps[name_of(GENERAL_PROTECTION)] += 1
            with self._guest_may_end(vcpu):
                vcpu.rip = (vcpu.rip - self._int_length(vcpu, vector)) & 0xFFFFFFFF
                # The error code names the gate, and that it is in the IDT: bit 1 (SDM volume 3, 6.13).
                self._reflect(vcpu, GENERAL_PROTECTION, vector * 8 + 2, None)
            return
        if vector == TRAP_ENTRY:
            self._hypercall_from(vcpu)
            return
        self.traps[name_of(vector)] += 1
        with self._guest_may_end(vcpu):
            self._reflect(vcpu, vector, None, None)

    def _hypercall_from(self, vcpu: Vcpu) -> None:
        number, *arguments = vcpu.batch("eax", *self.state.abi.registers).read()
        vcpu.set("eax", self.hypercall(vcpu, number, *arguments))

    def _is_hypercall(self, vcpu: Vcpu) -> bool:
        """Whether the guest's kernel stands at a ``vmcall`` that its host took for a hypercall (is_hypercall())."""
        if not self.state.abi.vmcall or vcpu.cpl != GUEST_PL:
            return False
        places = (self.state.shadow.guest_pa((vcpu.rip + at) & 0xFFFFFFFF) for at in range(len(VMCALL)))
        return b"".join(self.state.memory.read(pa, 1) for pa in places) == VMCALL

    def _int_length(self, vcpu: Vcpu, vector: int) -> int:
        """Bytes of the instruction before EIP: ``int3`` and ``into`` are one, ``int n`` is two with n as its second."""
        pa = self.state.shadow.guest_pa((vcpu.rip - 1) & 0xFFFFFFFF)
        # By the bytes: Unicorn tells the vector, not which instruction raised it.
        last = self.state.memory.read(pa, 1)[0]
        return 1 if (vector, last) in ((3, _INT3), (4, _INTO)) else 2

    def syscall(self, vcpu: Vcpu) -> None:
        """A 32-bit CPU that has no ``syscall``: an invalid opcode."""
        self._refuse(vcpu, INVALID_OPCODE)

    def sysenter(self, vcpu: Vcpu) -> None:
        """The host zeroed SYSENTER_CS, for the instruction leads to ring 0: a general protection fault."""
        self._refuse(vcpu, GENERAL_PROTECTION)

    def _refuse(self, vcpu: Vcpu, vector: int) -> None:
        # Both instructions have two bytes, and a fault's EIP points at them.
        vcpu.rip = (vcpu.rip - 2) & 0xFFFFFFFF
        self.machine.exception(vcpu, vector, 0, None)

    def privileged(self, vcpu: Vcpu, name: str, *operands: int) -> int | None:
        """Port instructions, which a kernel probes with, are done for it; any other is the guest's own fault.

        Every read gives all ones, and writes are lost (emulate_insn() of drivers/lguest/x86/core.c).
        """
        # emulate_insn(): probing for devices must find none, and not end the guest.
        if vcpu.cpl == GUEST_PL and name in ("in_", "out"):
            self.traps[f"emulated_{name.rstrip('_')}"] += 1
            self.machine.clock.advance(costs.HOST_TRIP_NS)
            return (1 << 8 * operands[1]) - 1 if name == "in_" else None
        raise general_protection(f"{name} is not allowed in ring {vcpu.cpl}")

    def cpuid(self, vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """The processor's own answer: cpuid does not trap, so the host has no say."""
        return cpuid(vcpu, leaf, subleaf)

    def io_in(self, vcpu: Vcpu, port: int, size: int) -> int:
        """There is no device: all ones."""
        del vcpu, port
        return (1 << 8 * size) - 1

    def io_out(self, vcpu: Vcpu, port: int, size: int, value: int) -> None:
        """There is no device: lost."""

    def halted(self, vcpu: Vcpu) -> None:
        """``hlt`` runs in ring 0 only, where no guest is.

        Raises:
            MachineError: always.
        """
        raise MachineError("hlt outside of the guest's rings", vcpu.index, vcpu.rip)

    # Interrupts and time

    def before_entry(self, vcpu: Vcpu) -> None:
        """Deliver the first interrupt that waits, if the guest takes any now."""
        if self._end is not None:
            self.machine.stop(*self._end)
            return
        state = self.state
        interrupts = state.interrupts
        # Before interrupts are looked at: the timer's may be the one to deliver.
        interrupts.tick(self.machine.clock.ns)
        if interrupts.deadline is not None:
            vcpu.expect(interrupts.deadline)
        if state.data is None:
            return
        with self._guest_may_end(vcpu):
            if state.devices is not None:
                # Buffers are emptied without a word (2.6.23), and this is where the guest has just run.
                state.devices.poll()
            gate = interrupts.take(state.data, vcpu.rip)
            if gate is not None:
                self.traps["interrupt"] += 1
                self.machine.log.record(_INTERRUPT, vcpu.index, handler=gate.handler)
                # try_deliver_interrupt() writes the time with each delivery.
                state.write_time()
                self._enter(vcpu, gate, None, reflected=True)
            # A halted vCPU whose guest no longer sleeps: take() has ended the HALT.
            if vcpu.halted and not interrupts.halted:
                vcpu.wake()

    def interrupt(self, irq: int) -> None:
        """One of the guest's interrupts, from a device; a guest that sleeps wakes up if it takes it."""
        interrupts, data, vcpu = self.state.interrupts, self.state.data, self.machine.vcpus[0]
        interrupts.raise_irq(irq)
        if data is not None and interrupts.ready(data):
            vcpu.cut_short()
            if vcpu.halted:
                vcpu.wake()

    def typed(self, data: bytes) -> None:
        """To the console; dropped where there is none."""
        if self.state.devices is not None:
            with self._guest_may_end(self.machine.vcpus[0]):
                self.state.devices.typed(data)

    def rouse(self, vcpu: Vcpu) -> None:
        """The HALT hypercall may return before there is an interrupt, with interrupts on as after one."""
        interrupts, data = self.state.interrupts, self.state.data
        # As take() does for an interrupt: the code behind HALT expects them on.
        if interrupts.halted and data is not None:
            data.irq_enabled = INTERRUPT_FLAG
        interrupts.halted = False
        vcpu.wake()

    def idle(self) -> bool:
        """The guest sleeps: go on to its timer, if that will wake it."""
        data, interrupts, clock = self.state.data, self.state.interrupts, self.machine.clock
        if data is None:
            return False
        interrupts.tick(clock.ns)
        # A blocked interrupt does not wake a guest, so it sleeps on to its timer.
        if interrupts.next_irq(data) is None and interrupts.deadline is not None:
            self.sleep_until(interrupts.deadline)
            if clock.ns < interrupts.deadline:
                return True  # the run ends before
            interrupts.tick(clock.ns)
        if interrupts.next_irq(data) is None:
            return self.wait_for_typing()
        self.machine.vcpus[0].wake()
        return True

    # Snapshots

    def save(self) -> LguestState:
        """Python's part of the state."""
        return LguestState(
            self.state.save(),
            self._random.getstate(),
            (dict(self.hypercalls), dict(self.traps), dict(self.batched)),
            (self.page_table_updates, self.flushes, self.shadow_fills),
            self._end,
        )

    def load(self, state: LguestState) -> None:
        """Go back to what :meth:`save` gave."""
        host, chance, counts, sums, self._end = state
        self.state.load(host)
        self._random.setstate(chance)
        # In place, for a report holds the counters themselves.
        for counter, saved in zip((self.hypercalls, self.traps, self.batched), counts, strict=True):
            counter.clear()
            counter.update(saved)
        self.page_table_updates, self.flushes, self.shadow_fills = sums
