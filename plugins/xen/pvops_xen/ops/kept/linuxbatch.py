"""A Linux's own batch of hypercalls: ``mc_buffer`` of each processor (arch/x86/xen/multicalls.c)."""

from __future__ import annotations

import struct
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pvops_core.errors import MachineError
from pvops_xen.hypervisor.abi import DOMID_SELF, Hypercall
from pvops_xen.ops.kept.lazymodes import lazy_modes
from pvops_xen.ops.multicalls import ENTRY, MC_ARGS, MC_BATCH, MC_FLUSH, MMUEXT_OP, OPERATION, UPDATE, Lazy, Multicalls
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.ops.kept.linux import Linux
    from pvops_xen.platform import XenPlatform

_BITS: Final = 64
_ENTRY: Final = XEN["multicall_entry"]
_CALLBACK: Final = struct.Struct("<QQ")
"""``struct callback`` of arch/x86/xen/multicalls.c: a function and its data."""


class LinuxBatch(Multicalls):
    """One processor's."""

    def __init__(self, platform: XenPlatform, cpu: Vcpu, linux: Linux) -> None:
        super().__init__(platform, cpu)
        self._linux = linux
        self._memory = linux.memory
        self._modes = lazy_modes(linux, cpu)
        self._entry_size = _ENTRY.size(_BITS)
        self._result, self._arguments = (_ENTRY.offset(name, _BITS) for name in ("result", "args"))

    # --- where it is -----------------------------------------------------------------------------------------------

    @cached_property
    def _members(self) -> tuple[int, int, int]:
        """Offsets of entries, arguments and callbacks behind the three counts, mcidx, argidx and cbidx."""
        entries, args, callbacks = (
            self._linux.names.member("mc_buffer", name) for name in ("entries", "args", "callbacks")
        )
        return entries, args, callbacks

    @property
    def _buffer(self) -> int:
        return self._linux.names.per_cpu("mc_buffer", self._cpu)

    # --- filling ---------------------------------------------------------------------------------------------------

    def _room(self, size: int) -> tuple[int, int]:
        """``__xen_mc_entry``: addresses of a new entry and of ``size`` bytes of arguments."""
        memory, buffer = self._memory, self._buffer
        # Rounded up to 8, as ``__xen_mc_entry`` does.
        count, used = memory.u32(buffer), memory.u32(buffer + 4) + 7 & -8
        # Full of entries or of argument bytes: sent first (MC_BATCH, MC_ARGS).
        if count == MC_BATCH or used + size >= MC_ARGS:
            self.flush()
            count = used = 0
        memory.set_u32(buffer, count + 1)
        memory.set_u32(buffer + 4, used + size)
        entries, args, _ = self._members
        return buffer + entries + self._entry_size * count, buffer + args + used

    def add(self, nr: Hypercall, *args: int, data: bytes = b"", at: int = 0) -> None:
        """Append a call."""
        entry, place = self._room(len(data))
        arguments = list(args)
        if data:
            self._memory.write(place, data)
            arguments[at] = place
        self._memory.set_u64(entry, nr)
        self._memory.write(
            entry + self._arguments, struct.pack(f"<{len(args)}Q", *(n & (1 << 64) - 1 for n in arguments))
        )

    def _extend(self, nr: Hypercall, data: bytes) -> bool:
        """``xen_extend_args``: one more operation of the call that was added last; False if it is none such."""
        memory, buffer = self._memory, self._buffer
        count, used = memory.u32(buffer), memory.u32(buffer + 4)
        entries, args, _ = self._members
        last = buffer + entries + self._entry_size * (count - 1)
        # Only the last call can take one more, and only of the same kind.
        if not count or memory.u64(last) != nr or used + len(data) >= MC_ARGS:
            return False
        memory.set_u32(buffer + 4, used + len(data))
        place = last + _ENTRY.offset("args[1]", _BITS)  # how many operations there are
        memory.set_u64(place, memory.u64(place) + 1)
        memory.write(buffer + args + used, data)
        return True

    def update_entry(self, machine_address: int, value: int, kind: int = 0) -> None:
        """``xen_extend_mmu_update``."""
        data = UPDATE.at(_BITS).form.pack(machine_address | kind, value)
        if not self._extend(Hypercall.MMU_UPDATE, data):
            self.add(Hypercall.MMU_UPDATE, 0, 1, 0, DOMID_SELF, data=data)

    def extended(
        self, command: int, arg1: int | None = None, arg2: int | None = None, *, mask: bytes = b"", joins: bool = False
    ) -> None:
        """An mmuext_op; one that ``joins`` those before it, as ``xen_extend_mmuext_op``."""
        operation = OPERATION.at(_BITS).form
        # What joins must be of the same command, whose operations are one array.
        if joins and self._extend(Hypercall.MMUEXT_OP, operation.pack(command, arg1 or 0, arg2 or 0)):
            return
        entry, place = self._room(operation.size + len(mask))
        self._memory.set_u32(place, command)
        for name, value in (("arg1", arg1), ("arg2", place + operation.size if mask else arg2)):
            if value is not None:
                self._memory.set_u64(place + MMUEXT_OP.offset(name, _BITS), value)
        if mask:
            self._memory.write(place + operation.size, mask)
        self._memory.set_u64(entry, Hypercall.MMUEXT_OP)
        self._memory.write(entry + self._arguments, struct.pack("<4Q", place, 1, 0, DOMID_SELF))

    def after(self, function: str, data: int) -> None:
        """``xen_mc_callback``: a function of the kernel's that is called when all that is here now has been sent."""
        memory, buffer = self._memory, self._buffer
        # MC_BATCH callbacks at most, which is where a flush comes.
        if memory.u32(buffer + 8) == MC_BATCH:
            self.flush()
        count = memory.u32(buffer + 8)
        place = buffer + self._members[2] + _CALLBACK.size * count
        memory.write(place, _CALLBACK.pack(self._linux.names.address(function), data))
        memory.set_u32(buffer + 8, count + 1)

    # --- sending ---------------------------------------------------------------------------------------------------

    def issue(self, mode: Lazy) -> int:
        """As there; in an interrupt no lazy mode holds."""
        # An interrupt in a batch would send what its caller wanted to wait.
        return 0 if mode and self.waits(mode) else self.flush()

    def waits(self, mode: Lazy) -> bool:
        """Whether a lazy mode is in force here and now."""
        return self._modes.holds(mode) and not self._linux.in_interrupt(self._cpu)

    def flush(self) -> int:
        """``xen_mc_flush``."""
        memory, buffer = self._memory, self._buffer
        count, refused = memory.u32(buffer), 0
        entries = buffer + self._members[0]
        # One call is made by itself, which a multicall of one would cost twice.
        if count == 1:
            number, _, *arguments = ENTRY.at(_BITS).form.unpack(memory.read(entries, self._entry_size))
            result = self._platform.hypercall(self._cpu, number, *arguments[:5])  # as xen_single_call
            memory.set_u64(entries + self._result, result & (1 << 64) - 1)
            refused = int(result < 0)
        elif count:
            # A multicall that Xen refuses whole is a bug of the kernel's own.
            if self._platform.hypercall(self._cpu, Hypercall.MULTICALL, entries, count):
                raise MachineError("Xen refused the kernel's multicall", vcpu=self._cpu.index)
            refused = sum(memory.u64(entries + self._entry_size * each + self._result) >> 63 for each in range(count))
        if refused:
            self._platform.machine.log.record(MC_FLUSH, self._cpu.index, op=count, result=-refused)
            self.failed += refused
        # The counts only: what the entries hold stays until it is overwritten.
        memory.set_u32(buffer, 0)
        memory.set_u32(buffer + 4, 0)
        self._call_back(buffer)
        return refused

    def _call_back(self, buffer: int) -> None:
        memory, place = self._memory, buffer + self._members[2]
        for each in range(memory.u32(buffer + 8)):
            function, data = _CALLBACK.unpack(memory.read(place + _CALLBACK.size * each, _CALLBACK.size))
            # The only callback that any kernel has in its batch.
            if function != self._linux.names.address("set_current_cr3"):
                raise MachineError(f"the kernel's batch calls {function:#x} back", vcpu=self._cpu.index)
            memory.set_u64(self._linux.names.per_cpu("xen_current_cr3", self._cpu), data)
        memory.set_u32(buffer + 8, 0)

    # --- lazy modes ------------------------------------------------------------------------------------------------

    def enter(self, mode: Lazy) -> None:
        """From now on calls may wait."""
        self._modes.enter(mode)

    def leave(self) -> None:
        """``xen_mc_flush``, then the mode ends."""
        self.flush()
        self._modes.leave()

    def flush_mmu(self) -> None:
        """``arch_flush_lazy_mmu_mode``."""
        if self._modes.flushes():
            self.flush()

    # --- a context switch ------------------------------------------------------------------------------------------

    def start_switch(self, task: int) -> None:
        """``xen_start_context_switch``."""
        self._modes.start_switch(task, self.flush)

    def end_switch(self, task: int) -> None:
        """``xen_end_context_switch``."""
        self.flush()
        self._modes.end_switch(task)
