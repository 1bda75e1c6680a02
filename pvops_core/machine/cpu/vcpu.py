"""One virtual CPU: registers, memory as it sees it, privilege level and traps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.machine.cpu import traps
from pvops_core.machine.cpu.debugregs import DebugRegisters
from pvops_core.machine.cpu.descriptors import read_descriptor
from pvops_core.machine.cpu.faults import NMI, GuestFault
from pvops_core.machine.cpu.fpu import AFTER_FNINIT, load_image
from pvops_core.machine.cpu.insn import Instructions
from pvops_core.machine.cpu.iret import iret
from pvops_core.machine.cpu.msrs import KEPT, MSR_CSTAR, MSR_FMASK, MSR_LSTAR, MSR_STAR, after_reset
from pvops_core.machine.cpu.paging import CR4_PAE, EFER_LMA, Walk
from pvops_core.machine.cpu.realmode import enter_real_mode
from pvops_core.machine.cpu.registers import MSR_EFER, Registers
from pvops_core.machine.cpu.segments import Descriptor, HiddenState, flat
from pvops_core.machine.cpu.stackfaults import through_stack
from pvops_core.machine.cpu.virtual import VirtualMemory
from pvops_core.machine.unicorn import intercepts
from pvops_core.machine.unicorn.crossing import Crossing
from pvops_core.machine.unicorn.engine import Context, Engine, TableRegister, Words
from pvops_core.machine.unicorn.state import BLOCK_NS, Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine.machine import Machine

Loaded = tuple[int, Descriptor]
_TSC_OFFSET, _PATIENCE = int(Slot.TSC_OFFSET), int(Slot.PATIENCE)
_BUDGET, _ALLOWED = int(Slot.BUDGET), int(Slot.ALLOWED)
_FLOATING, _FLOATED = int(Slot.FLOATING), int(Slot.FLOATED)


class VcpuState(NamedTuple):
    """A vCPU in a snapshot.

    Attributes:
        registers: the engine's CPU context.
        halted: it sleeps in ``hlt``.
        held: it may not run.
        pending: vectors of external interrupts.
        unmaskable: vectors of those that IF does not hold up.
        tsc_offset: the time-stamp counter at virtual time 0.
        msrs: those that the engine does not keep, by number.
    """

    registers: bytes
    halted: bool
    held: bool
    pending: tuple[int, ...]
    unmaskable: tuple[int, ...]
    tsc_offset: int
    msrs: dict[int, int]


class Vcpu(Registers):
    """A vCPU. It starts at level 0 with flat segments, paging off (identity), interrupts off, everything else zero."""

    def __init__(self, machine: Machine, index: int, engine: Engine, context: Context, state: Words) -> None:
        super().__init__(machine.kind, engine)
        self.machine: Final = machine
        self.index: Final = index
        self.insn: Final = Instructions(self)
        self.virtual: Final = VirtualMemory(engine, machine.memory, machine.kind.bits)
        self.debug: Final = DebugRegisters(self, engine)
        self._context = context
        self._hidden = HiddenState(context, machine.layout)
        self.crossing: Final = Crossing(engine, context, machine.layout)
        self.call_msrs: Final = self.msr_batch(MSR_EFER, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_FMASK)  # all of syscall's
        self._size = machine.kind.pointer_size
        self.halted = False
        self.held = False
        self.pending: list[int] = []
        self.unmaskable: list[int] = []
        self._kept_msrs = after_reset(index)
        self._floating: Callable[[int], None] = lambda _: None
        self._state = state
        self._reset()

    def _reset(self) -> None:
        bits = self.machine.kind.bits
        self._engine.save(self._context)
        for name in ("cs", "ss", "ds", "es", "fs", "gs"):
            self._hidden.load(name, 0, flat(0, code=name == "cs", bits=bits))
        self._hidden.set_cpl(0)
        intercepts.install(self._engine, self._context, self.machine.layout)
        self.cr4 = CR4_PAE if bits == 64 else 0  # whatever the engine's model starts with
        self.load_fpu(AFTER_FNINIT)

    # Segments and privilege level

    @property
    def long_mode(self) -> bool:
        """EFER.LMA: 64-bit or compatibility mode."""
        return bool(self.msr(MSR_EFER) & EFER_LMA)

    @property
    def in_64_bit_code(self) -> bool:
        """CS is a 64-bit code segment."""
        return self.long_mode and bool(self.segment("cs")[3] & 1 << 21)

    def msr(self, number: int) -> int:
        """A model-specific register as the machine keeps it (0 for one that it does not have)."""
        return self._kept_msrs[number] if number in KEPT else super().msr(number)

    def set_msr(self, number: int, value: int) -> None:
        """Set a model-specific register without any check; one that the machine does not have is ignored."""
        if number in KEPT:
            self._kept_msrs[number] = value
        else:
            super().set_msr(number, value)

    def selector(self, name: str) -> int:
        """The visible part of a segment register."""
        return self.get(name)

    def segment(self, name: str) -> tuple[int, int, int, int]:
        """Selector, base, limit and second descriptor word of a segment register as the CPU holds it."""
        self._engine.save(self._context)
        return self._hidden.segment(name)

    def table(self, name: str) -> TableRegister:
        """gdtr, idtr, ldtr or tr: base and limit (and selector and flags of the last two)."""
        return self._engine.read_table(name)

    def set_table(self, name: str, base: int, limit: int, selector: int = 0, flags: int = 0) -> None:
        """Load gdtr, idtr, ldtr or tr without any check."""
        self._engine.write_table(name, TableRegister(selector, base, limit, flags))

    @property
    def interrupt_shadow(self) -> bool:
        """The last instruction was sti or mov ss: no interrupt may come before the next one has run."""
        self._engine.save(self._context)
        return self._hidden.interrupt_shadow

    def load_segment(self, name: str, selector: int) -> None:
        """Load a segment register from the guest's descriptor tables, whatever the level, which stays."""
        null = not selector & 0xFFFC
        descriptor = Descriptor(0, 0) if null else read_descriptor(self, selector)
        self._engine.save(self._context)
        self._hidden.load(name, selector, descriptor)
        self._commit(self.rip)

    def set_segments(self, cpl: int, cs: int, ss: int) -> None:
        """Change the privilege level from outside: CS and SS are loaded from the guest's descriptor tables.

        The level is ``cpl`` and the selectors' low two bits become it. A null ``ss`` is allowed in 64-bit mode.
        """
        code = read_descriptor(self, cs)
        stack = read_descriptor(self, ss) if ss & 0xFFFC else Descriptor(0, cpl << 13)
        rip = self.rip
        self._engine.save(self._context)
        self._hidden.load("cs", cs & 0xFFFC | cpl, code)
        self._hidden.load("ss", ss & 0xFFFC | cpl, stack)
        self._hidden.set_cpl(cpl)
        self._commit(rip)

    def enter(
        self, cpl: int, *, cs: Loaded, ss: Loaded | None, rip: int, rsp: int, rflags: int, outward: bool = False
    ) -> None:
        """Go to another place, perhaps at another privilege level, with descriptors already checked.

        ``outward`` also empties data segments that the new level may not use, as a return to an outer level does.
        """
        self._engine.save(self._context)
        hidden = self._hidden
        hidden.load_both(cs, ss)
        hidden.set_cpl(cpl)
        if outward:
            for name in ("ds", "es", "fs", "gs"):
                descriptor = Descriptor(0, hidden.segment(name)[3])
                if descriptor.dpl < cpl and not descriptor.conforming:
                    hidden.load(name, 0, Descriptor(0, 0))
        self._engine.restore(self._context)
        self.rflags = rflags
        self.rsp = rsp
        self.rip = rip

    def _commit(self, rip: int) -> None:
        self._engine.restore(self._context)
        self.rip = rip  # makes the engine leave the block that was translated for the old state

    # Memory and stack

    def walk(self, va: int, *, write: bool = False, user: bool | None = None, fetch: bool = False) -> Walk:
        """Translate an address by a software walk; ``user`` None means as the current privilege level.

        Raises:
            GuestFault: the fault that the access would give.
        """
        return self.virtual.walk(va, write=write, user=user, fetch=fetch)

    def read_virtual(self, va: int, n: int) -> bytes:
        """Read at the current privilege level; GuestFault on a fault."""
        return self.virtual.read(va, n)

    def write_virtual(self, va: int, data: bytes) -> None:
        """Write at the current privilege level: all of it, or a GuestFault and nothing."""
        self.virtual.write(va, data)

    def u8(self, va: int) -> int:
        """One byte."""
        return self.virtual.number(va, 1)

    def u16(self, va: int) -> int:
        """A 16-bit word."""
        return self.virtual.number(va, 2)

    def u32(self, va: int) -> int:
        """A 32-bit word."""
        return self.virtual.number(va, 4)

    def u64(self, va: int) -> int:
        """A 64-bit word."""
        return self.virtual.number(va, 8)

    def word(self, va: int) -> int:
        """A pointer-sized word."""
        return self.virtual.number(va, self._size)

    def set_u8(self, va: int, value: int) -> None:
        """Write one byte."""
        self.virtual.set_number(va, 1, value)

    def set_u16(self, va: int, value: int) -> None:
        """Write a 16-bit word."""
        self.virtual.set_number(va, 2, value)

    def set_u32(self, va: int, value: int) -> None:
        """Write a 32-bit word."""
        self.virtual.set_number(va, 4, value)

    def set_u64(self, va: int, value: int) -> None:
        """Write a 64-bit word."""
        self.virtual.set_number(va, 8, value)

    def set_word(self, va: int, value: int) -> None:
        """Write a pointer-sized word."""
        self.virtual.set_number(va, self._size, value)

    def push(self, value: int) -> None:
        """Push a pointer-sized word; the stack pointer moves only if the write succeeds."""
        rsp = self.rsp - self._size & self.machine.kind.mask
        try:
            self.set_word(rsp, value)
        except GuestFault as fault:
            raise through_stack(fault) from None
        self.rsp = rsp

    def pop(self) -> int:
        """Pop a pointer-sized word."""
        rsp = self.rsp
        try:
            value = self.word(rsp)
        except GuestFault as fault:
            raise through_stack(fault) from None
        self.rsp = rsp + self._size
        return value

    def ret(self) -> None:
        """Return to the address on the stack."""
        self.rip = self.pop()

    # Traps

    def deliver(self, vector: int, error_code: int | None = None) -> None:
        """Deliver an exception through the guest's IDT; a page fault's address must be in CR2 already."""
        traps.deliver(self, traps.Event(vector, error_code))

    def deliver_software(self, vector: int) -> None:
        """Deliver int n: the gate's DPL is checked."""
        traps.deliver(self, traps.Event(vector, software=True))

    def deliver_interrupt(self, vector: int) -> None:
        """Deliver an external interrupt."""
        self.halted = False
        traps.deliver(self, traps.Event(vector, external=True))

    def iret(self) -> None:
        """As if the guest executed iret (iretq in long mode) here, with the frame on its stack; GuestFault as iret."""
        iret(self)

    @property
    def tsc_offset(self) -> int:
        """What this vCPU's time-stamp counter is ahead of virtual time."""
        return self._state[_TSC_OFFSET]

    @tsc_offset.setter
    def tsc_offset(self, value: int) -> None:
        self._state[_TSC_OFFSET] = value

    def flush_tlb(self, va: int | None = None) -> None:
        """Drop the cached translation of an address, or all of them."""
        del va  # the engine has no call to drop one
        self.machine.counts["tlb_flushes"] += 1
        self._engine.flush_tlb()

    def float_ports(self, told: Callable[[int], None]) -> None:
        """From a handler: until one moves this vCPU, whatever port it reads gives all ones, and nobody is asked.

        ``told`` is then given how often that was. What moves a vCPU is a write of its RIP, or the end of a slice.
        """
        self._floating = told
        self._state[_FLOATING] = not self.debug.watches_ports

    def ground_ports(self) -> None:
        """Ports do not float any more; ``told`` is called."""
        state = self._state
        if state[_FLOATING]:
            count, state[_FLOATED], state[_FLOATING] = state[_FLOATED], 0, 0
            self.machine.counts["port_reads"] += count
            self._floating(count)

    def halt(self) -> None:
        """Do not run until woken."""
        self.halted = True
        self.machine.loop.interrupt()

    def expect(self, ns: int) -> None:
        """An interrupt is to be delivered here at virtual time ``ns``: end the slice then, or after a block if past.

        While the guest has interrupts off the slice goes on to the first block with interrupts on, but not beyond where
        it would have ended anyhow. From ``before_entry`` this is about the slice to come, else about the present one.
        """
        state = self._state
        blocks = max(1, -(-(ns - self.machine.clock.ns) // BLOCK_NS))
        less = state[_BUDGET] - blocks
        if less > 0:
            state[_BUDGET] = blocks
            state[_ALLOWED] -= less
            state[_PATIENCE] += less

    def cut_short(self) -> None:
        """End the present slice at the end of the block that is being executed."""
        state = self._state
        state[_ALLOWED] -= state[_BUDGET]
        state[_BUDGET] = state[_PATIENCE] = 0

    def start_real_mode(self, page: int) -> None:
        """Run again as an INIT and a start-up message make it: in real mode, at the beginning of a page.

        Args:
            page: number of a page below 1 MiB, 0 to 255: the vector of the message.
        """
        enter_real_mode(self, self._engine, self._context, self._hidden, page)
        self.halted = False

    def wake(self) -> None:
        """Run again after ``halt``."""
        self.halted = False

    def hold(self) -> None:
        """From outside: do not run, whatever happens, until released; what arrives meanwhile waits."""
        self.held = True

    def release(self) -> None:
        """Run again after ``hold``."""
        self.held = False

    @property
    def runnable(self) -> bool:
        """Whether the run loop may give it a slice now."""
        return not self.held and (not self.halted or bool(self.unmaskable))

    def raise_unmaskable(self, vector: int = NMI) -> None:
        """Deliver a non-maskable interrupt (2), or a machine check (18), when it next runs, whatever IF says."""
        if vector not in self.unmaskable:
            self.unmaskable.append(vector)

    def raise_irq(self, vector: int) -> None:
        """Make an external interrupt pending; a bare-metal platform delivers it when IF allows."""
        if vector not in self.pending:
            self.pending.append(vector)

    # Snapshots

    def save_registers(self) -> bytes:
        """The whole CPU state, as bytes that ``load_registers`` takes back."""
        self._engine.save(self._context)
        return bytes(self._context.bytes)

    def load_registers(self, words: bytes) -> None:
        """Go back to a CPU state that ``save_registers`` of this vCPU gave."""
        self._context.bytes[:] = words
        self._engine.restore(self._context)
        self._engine.flush_tlb()
        self.debug.refresh()
        self.rip = self.rip  # where a handler did this, the engine must leave the block it is in

    def load_fpu(self, image: bytes) -> None:
        """Load the x87 and SSE registers from the 512 bytes that fxsave writes.

        Raises:
            GuestFault: #GP(0), and nothing is changed: MXCSR has reserved bits.
        """
        load_image(self._engine, self.machine.kind, image)

    def save(self) -> VcpuState:
        """State for a snapshot."""
        pending, unmaskable = tuple(self.pending), tuple(self.unmaskable)
        words, kept = self.save_registers(), dict(self._kept_msrs)
        return VcpuState(words, self.halted, self.held, pending, unmaskable, self.tsc_offset, kept)

    def load(self, state: VcpuState) -> None:
        """Go back to a saved state."""
        words, self.halted, self.held, pending, unmaskable, self.tsc_offset, kept = state
        self._kept_msrs = dict(kept)
        self.pending, self.unmaskable = list(pending), list(unmaskable)
        self.load_registers(words)
