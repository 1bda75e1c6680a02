"""What every part of a vCPU works on: registers with their hidden parts, memory as it sees it, its own clock.

The parts (``insn``, ``traps``, ``iret``, ``debugregs`` …) take a :class:`Core`; ``Vcpu`` is one with all its parts, and
with the machine's platform behind it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from pvops_core.machine.cpu.memory.virtual import VirtualMemory
from pvops_core.machine.cpu.model.msrs import KEPT, after_reset
from pvops_core.machine.cpu.registers import Registers
from pvops_core.machine.cpu.segmentation.segments import Descriptor, HiddenState
from pvops_core.machine.engines import Context, Engine, StateWord, TableRegister, Words
from pvops_core.x86 import EFER_LMA, MSR_EFER

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.kinds import MachineKind
    from pvops_core.machine.cpu.memory.paging import Walk
    from pvops_core.machine.engines import ContextLayout
    from pvops_core.machine.memory import PhysicalMemory
    from pvops_core.machine.run.clock import Clock

Loaded = tuple[int, Descriptor]
_TSC_OFFSET = int(StateWord.TSC_OFFSET)


class CoreMachine(Protocol):
    """A machine as a processor's parts know it: what they are built into, without whoever answers traps."""

    kind: MachineKind
    memory: PhysicalMemory
    clock: Clock
    counts: Counter[str]
    layout: ContextLayout
    flushed: Callable[[int, int | str], None]

    def stop(self, reason: str, detail: str = "") -> None:
        """End the run once the present handler has returned."""


class Core(Registers):
    """A vCPU without what it takes a platform to answer."""

    machine: CoreMachine

    def __init__(self, machine: CoreMachine, index: int, engine: Engine, context: Context, state: Words) -> None:
        super().__init__(machine.kind, engine)
        self.machine = machine
        self.index: Final = index
        self.virtual: Final = VirtualMemory(engine, machine.memory, machine.kind.bits)
        self._context = context
        self._hidden = HiddenState(context, machine.layout)
        self._size = machine.kind.pointer_size
        self._kept_msrs = after_reset(index)
        self._state = state

    # Segments and privilege level

    @property
    def long_mode(self) -> bool:
        """EFER.LMA: 64-bit or compatibility mode."""
        return bool(self.msr(MSR_EFER) & EFER_LMA)

    @property
    def in_64_bit_code(self) -> bool:
        """CS is a 64-bit code segment."""
        # L, in the descriptor's second word (SDM volume 3, 3.4.5)
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
        # The binding has no call for the hidden parts: they are read out of a saved context, at places that ``probe``
        # has found.
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
            # Data segments that the outer level may not use are made null (SDM volume 2, RET and IRET: return to
            # outer privilege level).
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

    # Memory

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

    @property
    def tsc_offset(self) -> int:
        """What this vCPU's time-stamp counter is ahead of virtual time."""
        return self._state[_TSC_OFFSET]

    @tsc_offset.setter
    def tsc_offset(self, value: int) -> None:
        self._state[_TSC_OFFSET] = value

    def flush_tlb(self, va: int | None = None) -> None:
        """Drop the cached translation of an address, or all of them."""
        # Counted before the engine acts, because the engine flushes all where a processor would drop one page.
        self.machine.counts["tlb_flushes"] += 1
        self.machine.flushed(self.index, "all" if va is None else va)
        self._engine.flush_tlb()  # it has no call to drop one
