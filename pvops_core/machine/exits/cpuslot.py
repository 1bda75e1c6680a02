"""One vCPU with the engine, context and native state behind it, opened and closed together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pvops_core.machine.cpu.vcpu import Vcpu, VcpuState
from pvops_core.machine.engines import (
    CALL_WORDS,
    HOOK_BLOCK,
    HOOK_CODE,
    HOOK_INTR,
    HOOK_TRANSLATED,
    INSN_IN,
    INSN_RDTSC,
    INSN_RDTSCP,
    INSN_SYSCALL,
    Context,
    Engine,
    NativeWords,
    StateWord,
    exitrequest,
    guests_state,
    vetted_state,
)
from pvops_core.machine.exits.addresses import AddressHooks
from pvops_core.machine.exits.callbacks import Callbacks
from pvops_core.machine.exits.handlers import Handlers, Loop
from pvops_core.machine.exits.singlesteps import SingleSteps
from pvops_core.x86 import MSR_TSC_AUX

if TYPE_CHECKING:
    from pvops_core.machine.base import MachineBase
    from pvops_core.machine.engines import NativeCallbacks as Native
    from pvops_core.machine.handler import SyscallInPlace


class SlotState(NamedTuple):
    """A vCPU, the runs of code and the instructions that it has executed, and how far it is in the present run."""

    vcpu: VcpuState
    blocks: int
    instructions: int
    frontier: int


class CpuSlot:
    """What a machine keeps for each vCPU."""

    def __init__(self, machine: MachineBase, loop: Loop, index: int, native: Native) -> None:
        memory = machine.memory
        self.engine = Engine(machine.kind.bits, memory.address, memory.size)
        # Where the engine's flag was not found it is stopped by its own call, which costs a callback each block.
        if (switch := exitrequest.switch_offset()) is not None:
            self.engine.stop_between_blocks(switch)
        self.context = Context(self.engine)
        self.words = NativeWords(machine.kind, self.engine, self.context, machine.layout, memory)
        self.state = self.words.state
        self.blocks = 0
        self.renewed = 0  # how much of what others have rewritten its engine has dropped
        data = self.words.address
        # Hooks of one kind are called in this order: native code has counted the block before Python is asked
        # anything.
        self.engine.hook_native(HOOK_BLOCK, native.block, data)
        self.engine.hook_native(HOOK_INTR, native.interrupt, data)
        if machine.count_instructions:
            self.engine.hook_native(HOOK_CODE, native.instruction, data)
        self._answer_time_stamps(native, data)
        self.vcpu = Vcpu(machine, index, self.engine, self.context, self.state)
        self.handlers = Handlers(self.vcpu, self.engine, self.state, loop)
        self.steps = SingleSteps(self.handlers)
        self.addresses = AddressHooks(self.handlers, self.steps)
        self.callbacks = Callbacks(self.handlers)
        self._catch_calls(native, data)
        # Contexts of their own: what looks at registers in the middle of something must not spoil the one in use.
        self._spare = Context(self.engine)
        self._looked = Context(self.engine)
        self.callbacks.make_whole(self._looked)
        if machine.kind.bits == 32:
            self.callbacks.check_segments(self._spare)
        else:
            self._await_32_bit_code(native, data, machine.layout.hidden_flags)

    def _catch_calls(self, native: Native, data: int) -> None:
        """Syscall and in pass through native code first."""
        self.state[StateWord.SYSCALL] = self.callbacks.syscall
        self.state[StateWord.PORT_IN] = self.callbacks.port_in
        self.engine.hook_native_instruction(INSN_SYSCALL, native.syscall, data)
        self.engine.hook_native_instruction(INSN_IN, native.port_in, data)

    def _await_32_bit_code(self, native: Native, data: int, flags: int) -> None:
        """Its segments are checked from its first block on."""
        self.state[StateWord.SPARE], self.state[StateWord.SPARE_FLAGS] = (
            self._spare.address,
            self._spare.address + flags,
        )
        hook = self.engine.hook_native(HOOK_TRANSLATED, native.translated, data)
        self.state[StateWord.NARROW] = self.callbacks.await_32_bit_code(self._spare, hook)

    def serve_in_place(self, platform: SyscallInPlace) -> None:
        """Give system calls to ``platform.syscall_in_place`` first."""
        names = platform.call_registers
        assert len(names) <= CALL_WORDS
        self.state[StateWord.CALL_IDS], self.state[StateWord.CALL_POINTERS] = self.words.group(StateWord.CALL, *names)
        self.state[StateWord.CALL_COUNT] = len(names)
        self.callbacks.serve_in_place(platform.syscall_in_place, len(names))

    def _answer_time_stamps(self, native: Native, data: int) -> None:
        """Rdtsc and rdtscp would read the host's counter."""
        self.words.point_at_time_stamps(MSR_TSC_AUX)
        self.engine.hook_native_instruction(INSN_RDTSC, native.rdtsc, data)
        self.engine.hook_native_instruction(INSN_RDTSCP, native.rdtscp, data)

    def save(self) -> SlotState:
        """State for a snapshot."""
        state = self.state
        return SlotState(self.vcpu.save(), self.blocks, state[StateWord.INSTRUCTIONS], state[StateWord.FRONTIER])

    def written(self, state: SlotState) -> SlotState:
        """A state as it is in a file: with nothing of this process in it."""
        words = guests_state(self.engine, self.vcpu.machine.layout, state.vcpu.registers)
        return state._replace(vcpu=state.vcpu._replace(registers=words))

    def read(self, written: SlotState) -> SlotState:
        """The state that a file has, whoever made that; MachineError if it is none of this machine's."""
        vcpu = self.vcpu
        words = vetted_state(self.engine, vcpu.machine.layout, vcpu.save_registers(), written.vcpu.registers)
        return written._replace(vcpu=written.vcpu._replace(registers=words))

    def load(self, state: SlotState) -> None:
        """Go back to a saved state."""
        vcpu, self.blocks, self.state[StateWord.INSTRUCTIONS], self.state[StateWord.FRONTIER] = state
        self.vcpu.load(vcpu)
        # Memory was replaced under the engine: what it has translated is of other bytes.
        self.engine.flush_code()

    def close(self) -> None:
        """Free the engine."""
        self.context.free()
        self._spare.free()
        self._looked.free()
        self.engine.close()
