"""One vCPU with the engine, context and native state behind it, opened and closed together."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from pvops_core.machine import engine as uc
from pvops_core.machine.callbacks import Callbacks
from pvops_core.machine.state import Slot, State
from pvops_core.machine.vcpu import Vcpu

if TYPE_CHECKING:
    from pvops_core.machine.machine import Machine
    from pvops_core.machine.native import Callbacks as Native


class CpuSlot:
    """What a machine keeps for each vCPU."""

    def __init__(self, machine: Machine, index: int, native: Native) -> None:
        memory = machine.memory
        self.engine = uc.Engine(machine.kind.bits, memory.address, memory.size)
        self.context = uc.Context(self.engine)
        self.state = State()
        self.blocks = 0
        self._fill(machine)
        data = ctypes.addressof(self.state)
        self.engine.hook_native(uc.HOOK_BLOCK, native.block, data)
        self.engine.hook_native(uc.HOOK_INTR, native.interrupt, data)
        if machine.count_instructions:
            self.engine.hook_native(uc.HOOK_CODE, native.instruction, data)
        self.vcpu = Vcpu(machine, index, self.engine, self.context)
        self.callbacks = Callbacks(self.vcpu, self.engine, self.state, machine.loop)

    def _fill(self, machine: Machine) -> None:
        layout, context, state = machine.layout, self.context, self.state
        state[Slot.ENGINE] = self.engine.handle
        state[Slot.EMU_STOP] = uc.function_address("uc_emu_stop")
        state[Slot.CONTEXT_SAVE] = uc.function_address("uc_context_save")
        state[Slot.CONTEXT_RESTORE] = uc.function_address("uc_context_restore")
        state[Slot.CONTEXT] = context.address
        state[Slot.EXCEPTION_WORD] = context.address + layout.exception
        state[Slot.ERROR_WORD] = context.address + layout.error_code
        state[Slot.SOFTWARE_WORD] = context.address + layout.software

    def save(self) -> object:
        """State for a snapshot."""
        return self.vcpu.save(), self.blocks, self.state[Slot.INSTRUCTIONS]

    def load(self, state: object) -> None:
        """Go back to a saved state."""
        assert isinstance(state, tuple)  # noqa: S101
        vcpu, self.blocks, self.state[Slot.INSTRUCTIONS] = state
        self.vcpu.load(vcpu)
        self.engine.flush_code()

    def close(self) -> None:
        """Free the engine."""
        self.context.free()
        self.engine.close()
