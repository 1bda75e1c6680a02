"""The guest's interrupt descriptors and the delivery of traps and interrupts through them.

Source: drivers/lguest/interrupts_and_traps.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs

from pvops_lguest.host.abi import TRAP_ENTRY
from pvops_lguest.host.data import INTERRUPT_FLAG
from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.segments import GUEST_PL, KERNEL_CS

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_lguest.host.data import LguestData
    from pvops_lguest.host.memory import VirtualGuestMemory

# Of x86 (SDM volume 3, 6.10); FIRST_EXTERNAL_VECTOR is the kernel's.
IDT_ENTRIES = 256
FIRST_EXTERNAL_VECTOR = 32
SYSCALL_VECTOR = 0x80

DEVICE_NOT_AVAILABLE = 7
GENERAL_PROTECTION = 13
PAGE_FAULT = 14

NAMES = (
    *("divide_error", "debug", "nmi", "int3", "overflow", "bounds", "invalid_op", "device_not_available"),
    *("double_fault", "coprocessor_segment_overrun", "invalid_tss", "segment_not_present", "stack_segment"),
    *("general_protection", "page_fault", "spurious_interrupt", "coprocessor_error", "alignment_check"),
    *("machine_check", "simd_error"),
)
"""The kernel's names of the exceptions (arch/i386/kernel/entry.S), by vector."""

NEVER_THE_GUESTS = frozenset({2, 8, 15, TRAP_ENTRY})
"""Vectors whose gates the host ignores: NMI, double fault, spurious interrupt, hypercall."""

# direct_trap(): page faults may be shadow faults, #GP may be in/out to emulate, #NM is the host's FPU state.
_SEEN_FIRST_BY_HOST = frozenset({DEVICE_NOT_AVAILABLE, GENERAL_PROTECTION, PAGE_FAULT, TRAP_ENTRY})
# SDM volume 3, 6.13: exceptions that push one.
_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})

INTERRUPT_GATE = 0xE
TRAP_GATE = 0xF

# TF, NT, RF and VM: a handler does not inherit them.
_HANDLER_FLAGS = ~(0x100 | 0x4000 | 0x10000 | 0x20000) & 0xFFFFFFFF


def name_of(vector: int) -> str:
    """Name of a vector, for counts."""
    return NAMES[vector] if vector < len(NAMES) else f"int_{vector:#x}"


@attrs.frozen
class Gate:
    """One present interrupt descriptor: handler address, type 0xE or 0xF, and who may raise it by ``int``."""

    handler: int
    type: int
    dpl: int


@attrs.define
class KernelStack:
    """Where a trap from user mode puts its frame: selector, top of the stack, and how many pages it has."""

    ss1: int = 0
    esp1: int = 0
    pages: int = 0


class TrapState(NamedTuple):
    """Gates by vector (handler, type, level), kernel stack (selector, top, pages), and the vector of system calls."""

    gates: dict[int, tuple[int, int, int]]
    stack: tuple[int, int, int]
    syscall_vector: int


class Traps:
    """One guest's IDT and how to enter its handlers."""

    def __init__(self, stack: KernelStack) -> None:
        self._gates: dict[int, Gate] = {}
        self._stack = stack
        self.syscall_vector = SYSCALL_VECTOR

    def load_idt_entry(self, vector: int, low: int, high: int) -> None:
        """LOAD_IDT_ENTRY: set the guest's gate for ``vector`` from the two words of its descriptor.

        Raises:
            GuestKilledError: no such vector, or neither an interrupt nor a trap gate.
        """
        # Ignored, not refused: the kernel writes all 256 gates at its start.
        if vector in NEVER_THE_GUESTS:
            return
        if vector >= IDT_ENTRIES:
            raise GuestKilledError(f"Setting idt entry {vector}")
        if not high & 0x8000:  # P
            self._gates.pop(vector, None)
            return
        type = high >> 8 & 0xF
        if type not in (INTERRUPT_GATE, TRAP_GATE):
            raise GuestKilledError(f"bad IDT type {type}")
        # Selector left out: handlers run in the kernel's code segment
        # The handler's address is split into two halves (SDM volume 3, 6.11).
        self._gates[vector] = Gate((low & 0xFFFF) | (high & 0xFFFF0000), type, high >> 13 & 3)

    def gate(self, vector: int) -> Gate | None:
        """The guest's gate for ``vector``, None where it is not present."""
        return self._gates.get(vector)

    def direct(self, vector: int) -> Gate | None:
        """The gate that the CPU takes for ``vector`` without the host, if it does (direct_trap()).

        Only trap gates can be: an interrupt gate would turn the real interrupt flag off. And not those that
        the host must see first, nor hardware vectors except the system call.
        """
        gate = self._gates.get(vector)
        # An interrupt gate clears the real flag if the CPU takes it, and that one must stay on.
        if gate is None or gate.type != TRAP_GATE or vector in _SEEN_FIRST_BY_HOST:
            return None
        return gate if vector < FIRST_EXTERNAL_VECTOR or vector == self.syscall_vector else None

    def software_level(self, vector: int) -> int:
        """The least privileged ring that may raise ``vector`` with an ``int`` instruction."""
        if vector == TRAP_ENTRY:
            return GUEST_PL
        gate = self._gates.get(vector)
        # Hardware interrupts are never the guest's to raise by int: their gates stay with the host.
        hardware = vector >= FIRST_EXTERNAL_VECTOR and vector != self.syscall_vector
        if gate is None or hardware or vector in _SEEN_FIRST_BY_HOST:
            return 0
        return gate.dpl

    def enter(
        self,
        vcpu: Vcpu,
        gate: Gate,
        memory: VirtualGuestMemory,
        *,
        error_code: int | None,
        data: LguestData | None,
    ) -> None:
        """set_guest_interrupt(): enter a handler on the guest's kernel stack, with the frame that the CPU would push.

        Args:
            vcpu: the CPU; its registers are those of the interrupted code.
            gate: the handler.
            memory: the guest's virtual memory.
            error_code: pushed last if not None.
            data: the shared page when the host delivers, whose irq_enabled is the interrupt flag that the
                frame shows and that an interrupt gate turns off; None when the CPU enters directly.

        Raises:
            GuestKilledError: the guest does not map its stack.
        """
        esp, eflags, cs, eip, ss = vcpu.batch("esp", "eflags", "cs", "eip", "ss").read()
        frame = [eflags, cs, eip]
        # The real flag is always set, so the frame gets what the guest believes.
        if data is not None and not data.irq_enabled & INTERRUPT_FLAG:
            frame[0] &= ~INTERRUPT_FLAG
        top, kernel_ss = esp, ss
        # Ring 3 has no right to the kernel's stack segment, and its own stack cannot be trusted.
        if cs & 3 != GUEST_PL:
            top, kernel_ss = self._stack.esp1, self._stack.ss1
            frame[:0] = [ss, esp]
        if error_code is not None:
            frame.append(error_code)
        for word in frame:
            top = (top - 4) & 0xFFFFFFFF
            # By the guest's tables, not the CPU: the shadow may lack the page, and a fault here would be a double
            # fault.
            memory.set_u32(top, word)
        # The selector of the gate is not used: guest_run_interrupt() sets KERNEL_CS at the guest's level.
        vcpu.set_segments(GUEST_PL, KERNEL_CS, kernel_ss)
        vcpu.batch("esp", "eflags", "eip").write(top, eflags & _HANDLER_FLAGS, gate.handler)
        # A trap gate leaves interrupts as they are (SDM volume 3, 6.12.1.3).
        if data is not None and gate.type == INTERRUPT_GATE:
            data.irq_enabled = 0

    def error_code(self, vector: int, error_code: int | None) -> int | None:
        """The error code that the frame of ``vector`` has: 0 if the CPU gave none, None if it has none."""
        return (error_code or 0) if vector in _WITH_ERROR_CODE else None

    def save(self) -> TrapState:
        """State for a snapshot."""
        gates = {vector: (gate.handler, gate.type, gate.dpl) for vector, gate in self._gates.items()}
        stack = self._stack.ss1, self._stack.esp1, self._stack.pages
        return TrapState(gates, stack, self.syscall_vector)

    def load(self, state: TrapState) -> None:
        """Go back to what :meth:`save` gave."""
        gates, stack, self.syscall_vector = state
        self._gates = {vector: Gate(*gate) for vector, gate in gates.items()}
        self._stack.ss1, self._stack.esp1, self._stack.pages = stack
