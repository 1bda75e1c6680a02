"""One vCPU with the engine, context and native state behind it, opened and closed together."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

from pvops_core.machine.cpu.msrs import MSR_TSC_AUX
from pvops_core.machine.cpu.registers import register_id
from pvops_core.machine.cpu.vcpu import Vcpu, VcpuState
from pvops_core.machine.exits.callbacks import Callbacks
from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn import midblock
from pvops_core.machine.unicorn.state import CALL_WORDS, Slot, State

if TYPE_CHECKING:
    from pvops_core.machine.board import Board
    from pvops_core.machine.handler import SyscallInPlace
    from pvops_core.machine.run.runloop import RunLoop
    from pvops_core.machine.unicorn.native import Callbacks as Native


class SlotState(NamedTuple):
    """A vCPU, and the blocks and instructions that it has run."""

    vcpu: VcpuState
    blocks: int
    instructions: int


class CpuSlot:
    """What a machine keeps for each vCPU."""

    def __init__(self, machine: Board, loop: RunLoop, index: int, native: Native) -> None:
        memory = machine.memory
        self.engine = uc.Engine(machine.kind.bits, memory.address, memory.size)
        if (switch := midblock.switch_offset()) is not None:
            self.engine.stop_between_blocks(switch)
        self.context = uc.Context(self.engine)
        self.state = State()
        self.blocks = 0
        self._kind = machine.kind
        self._keep: list[object] = []
        self._fill(machine)
        data = ctypes.addressof(self.state)
        self.engine.hook_native(uc.HOOK_BLOCK, native.block, data)
        self.engine.hook_native(uc.HOOK_INTR, native.interrupt, data)
        if machine.count_instructions:
            self.engine.hook_native(uc.HOOK_CODE, native.instruction, data)
        self._answer_time_stamps(native, data)
        self.vcpu = Vcpu(machine, index, self.engine, self.context, self.state)
        self.callbacks = Callbacks(self.vcpu, self.engine, self.state, loop)
        self._catch_calls(native, data)
        self._spare = uc.Context(self.engine) if machine.kind.bits == 32 else None
        if self._spare is not None:
            self.callbacks.check_segments(self._spare)

    def _fill(self, machine: Board) -> None:
        layout, context, state = machine.layout, self.context, self.state
        state[Slot.ENGINE] = self.engine.handle
        state[Slot.EMU_STOP] = uc.function_address("uc_emu_stop")
        state[Slot.CONTEXT_SAVE] = uc.function_address("uc_context_save")
        state[Slot.CONTEXT_RESTORE] = uc.function_address("uc_context_restore")
        state[Slot.CONTEXT] = context.address
        state[Slot.EXCEPTION_WORD] = context.address + layout.exception
        state[Slot.ERROR_WORD] = context.address + layout.error_code
        state[Slot.SOFTWARE_WORD] = context.address + layout.software
        state[Slot.READ_BATCH] = uc.function_address("uc_reg_read_batch")
        state[Slot.WRITE_BATCH] = uc.function_address("uc_reg_write_batch")
        state[Slot.WRITE_REGISTER] = uc.function_address("uc_reg_write")
        state[Slot.FAULT_IDS], state[Slot.FAULT_POINTERS] = self._group(Slot.FAULT_RIP, "rip", "cr2")
        state[Slot.READ_REGISTER] = uc.function_address("uc_reg_read")
        state[Slot.FLAGS_ID] = register_id(machine.kind, "rflags")

    def _group(self, first: Slot, *names: str) -> tuple[int, int]:
        """Addresses of what reads registers into words from one on: their numbers, and pointers to the words."""
        count, start = len(names), ctypes.addressof(self.state) + 8 * first
        ids = (ctypes.c_int * count)(*(register_id(self._kind, name) for name in names))
        pointers = (ctypes.c_void_p * count)(*(start + 8 * index for index in range(count)))
        self._keep += [ids, pointers]
        return ctypes.addressof(ids), ctypes.addressof(pointers)

    def _catch_calls(self, native: Native, data: int) -> None:
        """Syscall and in pass through native code first."""
        self.state[Slot.SYSCALL] = self.callbacks.syscall
        self.state[Slot.PORT_IN] = self.callbacks.port_in
        self.engine.hook_native_instruction(uc.INSN_SYSCALL, native.syscall, data)
        self.engine.hook_native_instruction(uc.INSN_IN, native.port_in, data)

    def serve_in_place(self, platform: SyscallInPlace) -> None:
        """Give system calls to ``platform.syscall_in_place`` first."""
        names = platform.call_registers
        assert len(names) <= CALL_WORDS
        self.state[Slot.CALL_IDS], self.state[Slot.CALL_POINTERS] = self._group(Slot.CALL, *names)
        self.state[Slot.CALL_COUNT] = len(names)
        self.callbacks.serve_in_place(platform.syscall_in_place, len(names))

    def _answer_time_stamps(self, native: Native, data: int) -> None:
        """Rdtsc and rdtscp would read the host's counter."""
        state = self.state
        aux_id = ctypes.c_int(uc.REGISTER_IDS["msr"])
        aux = uc.MsrValue(MSR_TSC_AUX, 0)
        aux_pointer = ctypes.c_void_p(ctypes.addressof(aux))
        self._keep += [aux_id, aux, aux_pointer]
        state[Slot.TSC_IDS], state[Slot.TSC_POINTERS] = self._group(Slot.TSC_LOW, "rax", "rdx", "rcx")
        state[Slot.AUX_ID], state[Slot.AUX_POINTER] = ctypes.addressof(aux_id), ctypes.addressof(aux_pointer)
        state[Slot.AUX_VALUE] = ctypes.addressof(aux) + uc.MsrValue.value.offset
        self.engine.hook_native_instruction(uc.INSN_RDTSC, native.rdtsc, data)
        self.engine.hook_native_instruction(uc.INSN_RDTSCP, native.rdtscp, data)

    def save(self) -> SlotState:
        """State for a snapshot."""
        return SlotState(self.vcpu.save(), self.blocks, self.state[Slot.INSTRUCTIONS])

    def load(self, state: SlotState) -> None:
        """Go back to a saved state."""
        vcpu, self.blocks, self.state[Slot.INSTRUCTIONS] = state
        self.vcpu.load(vcpu)
        self.engine.flush_code()

    def close(self) -> None:
        """Free the engine."""
        self.context.free()
        if self._spare is not None:
            self._spare.free()
        self.engine.close()
