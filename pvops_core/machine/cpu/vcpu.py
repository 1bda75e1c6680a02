"""One virtual CPU: registers, memory as it sees it, privilege level and traps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.machine.cpu import traps
from pvops_core.machine.cpu.core import Core
from pvops_core.machine.cpu.debugregs import DebugRegisters
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.fpu import AFTER_FNINIT, load_image, save_image
from pvops_core.machine.cpu.instructions.insn import Instructions
from pvops_core.machine.cpu.instructions.iret import iret
from pvops_core.machine.cpu.model.msrs import MSR_CSTAR, MSR_FMASK, MSR_LSTAR, MSR_STAR
from pvops_core.machine.cpu.realmode import enter_real_mode
from pvops_core.machine.cpu.segmentation.descriptors import read_descriptor
from pvops_core.machine.cpu.segmentation.segments import Descriptor, flat
from pvops_core.machine.cpu.segmentation.stackfaults import through_stack
from pvops_core.machine.engines import BLOCK_NS, ModeSwitch, StateWord, intercepts
from pvops_core.machine.run import slices
from pvops_core.x86 import CR4_PAE, DB, MSR_EFER, NMI

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine.base import MachineBase
    from pvops_core.machine.engines import Context, Engine, Words

_PATIENCE = int(StateWord.PATIENCE)
_FLOATING, _FLOATED = int(StateWord.FLOATING), int(StateWord.FLOATED)


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


class Vcpu(Core):
    """A vCPU. It starts at level 0 with flat segments, paging off (identity), interrupts off, everything else zero."""

    machine: MachineBase

    def __init__(self, machine: MachineBase, index: int, engine: Engine, context: Context, state: Words) -> None:
        super().__init__(machine, index, engine, context, state)
        self.insn: Final = Instructions(self)
        self.debug: Final = DebugRegisters(self, engine, self._debug_exception)
        self.mode_switch: Final = ModeSwitch(engine, context, machine.layout)
        self.call_msrs: Final = self.msr_batch(MSR_EFER, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_FMASK)  # all of syscall's
        self.halted = False
        self.held = False
        self.pending: list[int] = []
        self.unmaskable: list[int] = []
        self._stub_reads: Callable[[int], None] = lambda _: None
        self._reset()

    def _debug_exception(self) -> None:
        self.machine.platform.exception(self, DB, None, None)

    def _reset(self) -> None:
        bits = self.machine.kind.bits
        self._engine.save(self._context)
        for name in ("cs", "ss", "ds", "es", "fs", "gs"):
            self._hidden.load(name, 0, flat(0, code=name == "cs", bits=bits))
        self._hidden.set_cpl(0)
        intercepts.install(self._engine, self._context, self.machine.layout)
        # LMA is set from the start for a 64-bit machine, and long mode demands PAE.
        self.cr4 = CR4_PAE if bits == 64 else 0  # whatever the engine's model starts with
        self.load_fpu(AFTER_FNINIT)

    # Segments

    def load_segment(self, name: str, selector: int) -> None:
        """Load a segment register from the guest's descriptor tables, whatever the level, which stays."""
        # Selectors 0 to 3 are null: the RPL of one is not looked at (SDM volume 3, 3.4.2).
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
        stack = read_descriptor(self, ss) if ss & 0xFFFC else Descriptor(0, cpl << 13)  # bits 13 and 14 are the DPL
        rip = self.rip
        self._engine.save(self._context)
        self._hidden.load("cs", cs & 0xFFFC | cpl, code)
        # SS's DPL is the level (SDM volume 3, 5.5), so it has to be loaded with CS, not after it.
        self._hidden.load("ss", ss & 0xFFFC | cpl, stack)
        self._hidden.set_cpl(cpl)
        self._commit(rip)

    # Stack

    def push(self, value: int) -> None:
        """Push a pointer-sized word; the stack pointer moves only if the write succeeds."""
        rsp = self.rsp - self._size & self.machine.kind.mask
        # The stack pointer moves last: a fault restarts the instruction with it.
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
        traps.deliver(self, traps.TrapEvent(vector, error_code))

    def deliver_software(self, vector: int) -> None:
        """Deliver int n: the gate's DPL is checked."""
        traps.deliver(self, traps.TrapEvent(vector, software=True))

    def deliver_interrupt(self, vector: int) -> None:
        """Deliver an external interrupt."""
        self.halted = False
        traps.deliver(self, traps.TrapEvent(vector, external=True))

    def iret(self) -> None:
        """As if the guest executed iret (iretq in long mode) here, with the frame on its stack; GuestFault as iret."""
        iret(self)

    def stub_ports(self, told: Callable[[int], None]) -> None:
        """From a handler: until one moves this vCPU, whatever port it reads gives all ones, and nobody is asked.

        ``told`` is then given how often that was. What moves a vCPU is a write of its RIP, or the end of a slice.
        """
        self._stub_reads = told
        # A watched port must be told one by one, so then nothing floats.
        self._state[_FLOATING] = not self.debug.watches_ports

    def unstub_ports(self) -> None:
        """Ports do not float any more; ``told`` is called."""
        state = self._state
        if state[_FLOATING]:
            count, state[_FLOATED], state[_FLOATING] = state[_FLOATED], 0, 0
            self.machine.counts["port_reads"] += count
            self._stub_reads(count)

    def halt(self) -> None:
        """Do not run until woken."""
        self.halted = True
        self.machine.interrupt()

    def expect(self, ns: int) -> None:
        """An interrupt is to be delivered here at virtual time ``ns``: end the slice then, or after a block if past.

        While the guest has interrupts off the slice goes on to the first block with interrupts on, but not beyond where
        it would have ended anyhow. From ``before_entry`` this is about the slice to come, else about the present one.
        """
        state = self._state
        # Rounded up, and at least one: an interrupt that is late already comes after the block that is being
        # executed.
        blocks = max(1, -(-(ns - self.machine.clock.ns) // BLOCK_NS))
        less = slices.left(state) - blocks
        if less > 0:
            slices.shorten(state, less)
            state[_PATIENCE] += less

    def cut_short(self) -> None:
        """End the present slice at the end of the straight code that is being executed."""
        slices.end(self._state)

    def start_real_mode(self, page: int) -> None:
        """Run again as an INIT and a start-up message make it: in real mode, at the beginning of a page.

        Args:
            page: number of a page below 1 MiB, 0 to 255: the vector of the message.
        """
        self.debug.reset()
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
        # One bit a line, as the processor latches it: a second NMI before the first is taken is lost (SDM volume 3,
        # 6.7.1).
        if vector not in self.unmaskable:
            self.unmaskable.append(vector)

    def raise_irq(self, vector: int) -> None:
        """Make an external interrupt pending; a bare-metal platform delivers it when IF allows."""
        # As an IRR bit: raised twice before it is taken, it comes once (SDM volume 3, 10.8.4).
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
        # The context has control registers and no translations: those of the state before must go.
        self._engine.flush_tlb()
        self.debug.refresh()
        self.rip = self.rip  # where a handler did this, the engine must leave the block it is in

    def save_fpu(self) -> bytes:
        """The x87 and SSE registers, as the 512 bytes that fxsave writes."""
        return save_image(self._engine, self.machine.kind)

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
