"""Registers of a vCPU by name, one at a time or many in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.errors import MachineError
from pvops_core.machine.engines import REGISTER_IDS, Batch, Engine, MsrBatch, register_id
from pvops_core.x86 import FLAG_IF

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind

_SEGMENTS = frozenset({"cs", "ss", "ds", "es", "fs", "gs"})
GENERAL = {
    32: ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp"),
    64: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{number}" for number in range(8, 16))),
}
"""The general registers but for the stack pointer, by width."""


class Registers:
    """Access to one engine's registers. Reads give unsigned numbers; writes take any int and cut it to the width."""

    def __init__(self, kind: MachineKind, engine: Engine) -> None:
        self._kind = kind
        self._engine = engine
        self._ids: dict[str, int] = {}
        self._ip, self._sp, self._flags = (register_id(kind, name) for name in ("rip", "rsp", "rflags"))
        self._cs = REGISTER_IDS["cs"]
        self.rip_written = False

    def _id(self, name: str) -> int:
        number = self._ids.get(name)
        if number is None:
            number = self._ids[name] = register_id(self._kind, name)
        return number

    def get(self, name: str) -> int:
        """One register."""
        return self._engine.read(self._id(name))

    def set(self, name: str, value: int) -> None:
        """Set one register; segment registers have ``load_segment`` and ``set_segments`` instead."""
        if name in _SEGMENTS:
            raise MachineError(f"{name} is loaded with its descriptor, not set")
        number = self._id(name)
        # Whoever called a handler asks this: an RIP that it has written must not be moved on behind it.
        self.rip_written |= number == self._ip
        self._engine.write(number, value & self._kind.mask)

    def batch(self, *names: str) -> Batch:
        """Prepare a list of registers to be read or written in one call; make it once, use it often."""
        # A batch that has the instruction pointer in it tells whose ``rip_written`` to set.
        ids = tuple(map(self._id, names))
        return Batch(self._engine, ids, (self, ids.index(self._ip)) if self._ip in ids else None)

    def msr_batch(self, *numbers: int) -> MsrBatch:
        """Prepare a list of model-specific registers to be read in one call."""
        return MsrBatch(self._engine, numbers)

    @property
    def rip(self) -> int:
        """Instruction pointer. In a handler, setting it decides where the guest goes on."""
        return self._engine.read(self._ip)

    @rip.setter
    def rip(self, value: int) -> None:
        self.rip_written = True
        self._engine.write(self._ip, value & self._kind.mask)

    @property
    def rsp(self) -> int:
        """Stack pointer."""
        return self._engine.read(self._sp)

    @rsp.setter
    def rsp(self, value: int) -> None:
        self._engine.write(self._sp, value & self._kind.mask)

    @property
    def rflags(self) -> int:
        """Flags."""
        return self._engine.read(self._flags)

    @rflags.setter
    def rflags(self, value: int) -> None:
        # Flags that there are, CF to ID, and bit 1, which reads as 1 (Intel SDM volume 1, 3.4.3).
        self._engine.write(self._flags, value & 0x3F7FD7 | 2)

    @property
    def interrupts_enabled(self) -> bool:
        """RFLAGS.IF."""
        return bool(self.rflags & FLAG_IF)

    @interrupts_enabled.setter
    def interrupts_enabled(self, value: bool) -> None:
        self.rflags = self.rflags & ~FLAG_IF | (FLAG_IF if value else 0)

    @property
    def cpl(self) -> int:
        """Current privilege level, 0..3."""
        # The level is CS's RPL as loaded: hardware keeps CPL in these bits (SDM volume 3, 5.5).
        return self._engine.read(self._cs) & 3

    @property
    def cr0(self) -> int:
        """Control register 0; set without the checks of ``insn.mov_to_cr``."""
        return self.get("cr0")

    @cr0.setter
    def cr0(self, value: int) -> None:
        self.set("cr0", value)

    @property
    def cr2(self) -> int:
        """Address of the last page fault."""
        return self.get("cr2")

    @cr2.setter
    def cr2(self, value: int) -> None:
        self.set("cr2", value)

    @property
    def cr3(self) -> int:
        """Physical address of the top page table; setting it flushes the TLB."""
        return self.get("cr3")

    @cr3.setter
    def cr3(self, value: int) -> None:
        self.set("cr3", value)

    @property
    def cr4(self) -> int:
        """Control register 4; set without the checks of ``insn.mov_to_cr``."""
        return self.get("cr4")

    @cr4.setter
    def cr4(self, value: int) -> None:
        self.set("cr4", value)

    def msr(self, number: int) -> int:
        """A model-specific register as the CPU keeps it (0 for one that it does not have)."""
        return self._engine.read_msr(number)

    def set_msr(self, number: int, value: int) -> None:
        """Set a model-specific register; one that the CPU does not have is ignored."""
        self._engine.write_msr(number, value)
