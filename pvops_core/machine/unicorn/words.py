"""The words of one vCPU's native callbacks, filled with the addresses that they call and read."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn.batch import register_id
from pvops_core.machine.unicorn.state import State, StateWord

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind
    from pvops_core.machine.memory import PhysicalMemory
    from pvops_core.machine.unicorn.probe import ContextLayout


class NativeWords:
    """What native code knows of one vCPU, and what must live as long as it.

    Attributes:
        state: the words.
        address: of the first.
    """

    def __init__(
        self, kind: MachineKind, engine: uc.Engine, context: uc.Context, layout: ContextLayout, memory: PhysicalMemory
    ) -> None:
        self.state: Final = State()
        self.address: Final = ctypes.addressof(self.state)
        self._kind = kind
        self._keep: list[object] = []
        state = self.state
        state[StateWord.ENGINE] = engine.handle
        state[StateWord.EMU_STOP] = uc.function_address("uc_emu_stop")
        state[StateWord.CONTEXT_SAVE] = uc.function_address("uc_context_save")
        state[StateWord.CONTEXT_RESTORE] = uc.function_address("uc_context_restore")
        state[StateWord.CONTEXT] = context.address
        state[StateWord.EXCEPTION_WORD] = context.address + layout.exception
        state[StateWord.ERROR_WORD] = context.address + layout.error_code
        state[StateWord.SOFTWARE_WORD] = context.address + layout.software
        state[StateWord.TRANSLATE] = uc.function_address("uc_vmem_translate")
        state[StateWord.MEMORY], state[StateWord.MEMORY_SIZE] = memory.address, memory.size
        state[StateWord.READ_BATCH] = uc.function_address("uc_reg_read_batch")
        state[StateWord.WRITE_BATCH] = uc.function_address("uc_reg_write_batch")
        state[StateWord.WRITE_REGISTER] = uc.function_address("uc_reg_write")
        state[StateWord.FAULT_IDS], state[StateWord.FAULT_POINTERS] = self.group(StateWord.FAULT_RIP, "rip", "cr2")
        state[StateWord.READ_REGISTER] = uc.function_address("uc_reg_read")
        state[StateWord.FLAGS_ID] = register_id(kind, "rflags")

    def group(self, first: StateWord, *names: str) -> tuple[int, int]:
        """Addresses of what reads registers into words from one on: their numbers, and pointers to the words."""
        count, start = len(names), self.address + 8 * first
        ids = (ctypes.c_int * count)(*(register_id(self._kind, name) for name in names))
        pointers = (ctypes.c_void_p * count)(*(start + 8 * index for index in range(count)))
        self._keep += [ids, pointers]
        return ctypes.addressof(ids), ctypes.addressof(pointers)

    def point_at_time_stamps(self, aux_msr: int) -> None:
        """The registers of rdtsc and rdtscp, and the model-specific register that the latter reads."""
        state = self.state
        aux_id = ctypes.c_int(uc.REGISTER_IDS["msr"])
        aux = uc.MsrValue(aux_msr, 0)
        aux_pointer = ctypes.c_void_p(ctypes.addressof(aux))
        self._keep += [aux_id, aux, aux_pointer]
        state[StateWord.TSC_IDS], state[StateWord.TSC_POINTERS] = self.group(StateWord.TSC_LOW, "rax", "rdx", "rcx")
        state[StateWord.AUX_ID], state[StateWord.AUX_POINTER] = ctypes.addressof(aux_id), ctypes.addressof(aux_pointer)
        state[StateWord.AUX_VALUE] = ctypes.addressof(aux) + uc.MsrValue.value.offset
