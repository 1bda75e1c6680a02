"""From the engine to the platform: one vCPU's exceptions, and the instructions that the engine leaves to others."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu import faults
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.memory.intents import as_processor
from pvops_core.machine.cpu.model.cpuid import MARK, NO_LEAF
from pvops_core.machine.cpu.segmentation.stackfaults import canonicality_decides, vector_of
from pvops_core.machine.engines import (
    CPUID_CALLBACK,
    EXITS,
    HOOK_INTR,
    HOOK_INVALID,
    IN_CALLBACK,
    INSN_CPUID,
    INSN_OUT,
    INSN_SYSENTER,
    INTR_CALLBACK,
    INVALID_CALLBACK,
    LOOK_CALLBACK,
    OUT_CALLBACK,
    SYSCALL_CALLBACK,
    Context,
    StateWord,
)
from pvops_core.machine.exits.instructions import answer, icebp, is_rdpmc
from pvops_core.machine.exits.wholeaccess import WholeAccesses
from pvops_core.machine.run.eventkinds import event_kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.exits.handlers import Handlers
    from pvops_core.machine.exits.segmentlimits import SegmentLimits

_EXCEPTION: Final = event_kind(
    "exception",
    "The processor raised an exception; the observers and the platform are told next.",
    vector="int: 0 to 31",
    rip="int: of the instruction, or behind it for a trap",
    error="int: the error code, 0 for none; absent where the machine made #UD by itself",
    address="int: CR2 of a page fault, else 0; absent as error is",
)
_INT: Final = event_kind(
    "int",
    "int n, int3 or into was executed.",
    vector="int: what was asked for",
    rip="int: behind the instruction",
)
_SYSCALL: Final = event_kind(
    "syscall",
    "syscall was executed, and the platform did not serve it in place.",
    rip="int: of the instruction",
)

_ERROR_CODE, _SOFTWARE = int(StateWord.ERROR_CODE), int(StateWord.SOFTWARE)
_BUDGET, _ALLOWED = int(StateWord.BUDGET), int(StateWord.ALLOWED)
_FRONTIER, _FRONTIER_BEFORE = int(StateWord.FRONTIER), int(StateWord.FRONTIER_BEFORE)
_FAULT_RIP, _FAULT_ADDRESS = int(StateWord.FAULT_RIP), int(StateWord.FAULT_ADDRESS)
_CALL, _ANSWER, _ANSWERED = 8 * StateWord.CALL, int(StateWord.ANSWER), int(StateWord.ANSWERED)
_TWO_BYTE_OPCODE = 0x0F
_OF_FETCHES = frozenset({faults.PF, faults.GP})
_RESTORED = frozenset({faults.PF, faults.GP, faults.SS, faults.NM})  # of those that access memory in pieces
_PATIENCE = 10_000
"""How often the same instruction may fault at the same address with nothing executed in between."""


class Callbacks:
    """The Python callbacks of one engine."""

    def __init__(self, handlers: Handlers) -> None:
        vcpu, engine = handlers.vcpu, handlers.engine
        self._handlers = handlers
        self._serve = handlers.run
        self._vcpu = vcpu
        self._engine = engine
        self._state = handlers.state
        self._loop = handlers.loop
        self._registers = vcpu.batch("eax", "ebx", "ecx", "edx")
        self._last: tuple[int, int, int] = (0, 0, 0)
        self._last_blocks = 0
        self._repeats = 0
        self._read = 0
        self.limits: SegmentLimits | None = None
        self.whole: WholeAccesses
        self._in_place: Callable[..., int | None] | None = None
        self._call = struct.Struct("")
        self.syscall = engine.keep(SYSCALL_CALLBACK(self._syscall))  # native code calls these two
        self.port_in = engine.keep(IN_CALLBACK(self._in))
        engine.hook(HOOK_INTR, INTR_CALLBACK(self._interrupt))
        engine.hook(HOOK_INVALID, INVALID_CALLBACK(self._invalid))
        engine.hook_instruction(INSN_SYSENTER, SYSCALL_CALLBACK(self._sysenter))
        engine.hook_instruction(INSN_CPUID, CPUID_CALLBACK(self._cpuid))
        engine.hook_instruction(INSN_OUT, OUT_CALLBACK(self._out))

    def serve_in_place(self, handler: Callable[..., int | None], count: int) -> None:
        """Ask a handler first what a system call comes to, with so many registers' values."""
        self._in_place = handler
        self._call = struct.Struct(f"{count}Q")

    def make_whole(self, context: Context) -> None:
        """Look at accesses first that the engine makes in pieces."""
        self.whole = WholeAccesses(self._handlers, context)

    def check_segments(self, context: Context) -> None:
        """Check accesses through segments that are not flat."""
        from pvops_core.machine.exits.segmentlimits import SegmentLimits  # noqa: PLC0415 - for 32-bit code only

        self.limits = SegmentLimits(self._handlers, context)

    def await_32_bit_code(self, context: Context, hook: int) -> int:
        """Check such accesses from the first block of 32-bit code on, of which the hook tells: whom it is to call."""

        def first(start: int, size: int) -> None:
            self._engine.unhook(hook)
            self.check_segments(context)
            if self.limits is not None:
                self.limits.look(start, size)

        return self._engine.keep(LOOK_CALLBACK(self._handlers.guarded(first)))

    def _interrupt(self, _engine: int, vector: int, _data: int) -> None:
        if self._engine.between:
            self._engine.stop()
        elif vector >= EXITS:
            self._serve(self._leave, vector)
        elif vector in _OF_FETCHES and self._too_early(vector):
            self._engine.stop()
        else:
            self._serve(self._dispatch, vector)

    def _leave(self, vcpu: Vcpu, vector: int) -> None:
        """The engine asks for an instruction, or one is refused."""
        try:
            if refused := (self.limits and self.limits.refused()) or self.whole.refused():
                raise refused
            answer(vcpu, vector, self._state[_ERROR_CODE])
        except GuestFault as fault:
            self._note(vcpu, fault.vector, vcpu.rip, fault.error_code, fault.address)
            raise
        self._state[_FRONTIER] = vcpu.rip

    @staticmethod
    def _note(vcpu: Vcpu, vector: int, rip: int, error_code: int | None, address: int | None = None) -> None:
        machine = vcpu.machine
        machine.counts["exceptions"] += 1
        machine.log.record(_EXCEPTION, vcpu.index, vector=vector, rip=rip, error=error_code or 0, address=address or 0)

    def _too_early(self, vector: int) -> bool:
        """The engine could not translate a block to its end, and has not begun to execute it."""
        state, mask = self._state, self._vcpu.machine.kind.mask
        if state[_SOFTWARE]:
            return False
        address, rip = state[_FAULT_ADDRESS] & mask, state[_FAULT_RIP] & mask
        early = self._handlers.page_end.too_early(vector, rip, state[_ERROR_CODE], address)
        if early or (vector == faults.PF and address == rip):
            state[_FRONTIER] = state[_FRONTIER_BEFORE]  # the block has not begun
        return early

    def _dispatch(self, vcpu: Vcpu, vector: int) -> None:
        machine, state = vcpu.machine, self._state
        rip = state[_FAULT_RIP] & machine.kind.mask
        if state[_SOFTWARE]:
            machine.counts["software_interrupts"] += 1
            machine.log.record(_INT, vcpu.index, vector=vector, rip=rip)
            self._loop.platform.software_interrupt(vcpu, vector)
            return
        ordered = self.whole.faulted(rip) if vector in _RESTORED else None
        if vector == faults.DB:
            # Behind a load of SS there is no single-step trap (SDM volume 3, 6.8.3).
            if not vcpu.debug.stepped():
                return
        elif vcpu.debug.watching:
            vcpu.debug.faulted()
        error_code = state[_ERROR_CODE] if vector in faults.WITH_ERROR_CODE else None
        address = state[_FAULT_ADDRESS] & machine.kind.mask if vector == faults.PF else None
        if canonicality_decides(vector, error_code, address):
            decided = vector_of(vcpu, vector)
            if decided != vector:
                vector, error_code, address = decided, None if decided == faults.UD else 0, None
        if vector == faults.PF and error_code is not None and address is not None:
            error_code, address = as_processor(vcpu, rip, ordered, error_code, address)
        self._note(vcpu, vector, rip, error_code, address)
        if self._progresses(vector, rip, address or 0):
            machine.exception(vcpu, vector, error_code, address)

    def _progresses(self, vector: int, rip: int, address: int) -> bool:
        """Whether something was executed since this exception last came; if not for long, the guest has crashed."""
        key, blocks = (vector, rip, address), self._state[_ALLOWED] - self._state[_BUDGET]
        if key == self._last and 0 <= blocks - self._last_blocks <= 1:
            self._repeats += 1
        else:
            self._last, self._repeats = key, 0
        self._last_blocks = blocks
        if self._repeats < _PATIENCE:
            return True
        vcpu = self._vcpu
        vcpu.machine.stop("crash", f"vcpu {vcpu.index} makes no progress: vector {vector} at {rip:#x} for ever")
        return False

    def _invalid(self, _engine: int, _data: int) -> bool:
        self._serve(self._undefined)
        return True

    def _undefined(self, vcpu: Vcpu) -> None:
        self._state[_FRONTIER] = vcpu.rip
        if icebp(vcpu):
            return
        vector, error_code = (faults.GP, 0) if is_rdpmc(vcpu) else (faults.UD, None)
        vcpu.machine.counts["exceptions"] += 1
        vcpu.machine.log.record(_EXCEPTION, vcpu.index, vector=vector, rip=vcpu.rip)
        if self._progresses(vector, vcpu.rip, 0):
            vcpu.machine.exception(vcpu, vector, error_code, None)

    def _syscall(self, _engine: int, _data: int) -> None:
        self._serve(self._system_call)

    def _system_call(self, vcpu: Vcpu) -> None:
        if self._in_place is not None:
            result = self._in_place(vcpu, *self._call.unpack_from(self._state, _CALL))
            if result is not None:
                self._state[_ANSWER] = result
                self._state[_ANSWERED] = 1
                vcpu.machine.counts["syscalls"] += 1
                return
        self._fast_call(vcpu, self._loop.platform.syscall)

    def _sysenter(self, _engine: int, _data: int) -> None:
        self._serve(self._fast_call, self._loop.platform.sysenter)

    def _fast_call(self, vcpu: Vcpu, handler: Callable[[Vcpu], None]) -> None:
        """Syscall or sysenter: Unicorn adds the instruction's length after the callback, wherever RIP then is."""
        vcpu.machine.counts["syscalls"] += 1
        start = vcpu.rip
        vcpu.machine.log.record(_SYSCALL, vcpu.index, rip=start)
        length = self._length(vcpu, start)
        # Handlers see RIP behind the instruction, as syscall leaves it in RCX (SDM volume 2, SYSCALL).
        vcpu.rip = start + length
        try:
            handler(vcpu)
        except GuestFault as fault:
            vcpu.rip = start
            vcpu.machine.exception(vcpu, fault.vector, fault.error_code, fault.address)
        finally:
            # Whoever moved it elsewhere has it moved by the same length again: the engine adds it afterwards.
            vcpu.rip -= length

    @staticmethod
    def _length(vcpu: Vcpu, rip: int) -> int:
        """Bytes of a two-byte instruction with its prefixes."""
        length = 2
        while vcpu.u8(rip + length - 2) != _TWO_BYTE_OPCODE:
            length += 1
        return length

    def _cpuid(self, _engine: int, _data: int) -> int:
        self._serve(self._identify)
        return 1

    def _identify(self, vcpu: Vcpu) -> None:
        leaf, _, subleaf, _ = self._registers.read()
        if leaf == MARK:
            vcpu.machine.marked(vcpu, subleaf)
            self._registers.write(*NO_LEAF)
            return
        vcpu.machine.counts["cpuids"] += 1
        try:
            self._registers.write(*self._loop.platform.cpuid(vcpu, leaf, subleaf))
        except GuestFault as fault:
            self._handlers.postpone(fault)

    def _in(self, _engine: int, port: int, size: int, _data: int) -> int:
        self._read = 0
        self._serve(self._read_port, port, size)
        return self._read & 0xFFFFFFFF

    def _read_port(self, vcpu: Vcpu, port: int, size: int) -> None:
        vcpu.machine.counts["port_reads"] += 1
        try:
            self._read = vcpu.insn.in_(port, size)
            if vcpu.debug.watching:
                vcpu.debug.on_port(port, size)
        except GuestFault as fault:
            self._handlers.postpone(fault)

    def _out(self, _engine: int, port: int, size: int, value: int, _data: int) -> None:
        self._serve(self._write_port, port, size, value)

    def _write_port(self, vcpu: Vcpu, port: int, size: int, value: int) -> None:
        vcpu.machine.counts["port_writes"] += 1
        try:
            vcpu.insn.out(port, value, size)
            if vcpu.debug.watching:
                vcpu.debug.on_port(port, size)
        except GuestFault as fault:
            self._handlers.postpone(fault)

    def finish(self) -> bool:
        """After a slice: deliver what was postponed, if anything."""
        fault = self._handlers.take_postponed()
        if fault is None:
            return False
        self.whole.put_back()
        self._vcpu.machine.exception(self._vcpu, fault.vector, fault.error_code, fault.address)
        return True
