"""Batches of hypercalls, and the lazy modes that say when they may wait (arch/x86/xen/multicalls.c)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from pvops_core.machine.run.eventkinds import event_kind
from pvops_xen.hypervisor.abi import DOMID_SELF, Hypercall
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.platform import XenPlatform

MC_FLUSH: Final = event_kind(
    "xen_mc_flush",
    "A call of a batch failed.",
    op="int: number of the hypercall",
    result="int: what it gave",
)

MC_BATCH: Final = 32  # as MC_ARGS of arch/x86/xen/multicalls.c
MC_ARGS: Final = 512
_RED_ZONE: Final = 128
MMUEXT_OP: Final = XEN["mmuext_op"]
OPERATION: Final = MMUEXT_OP.whole("cmd", "arg1.mfn", "arg2.src_mfn")
MASK: Final = MMUEXT_OP.part("arg2.vcpumask")
UPDATE: Final = XEN["mmu_update"].whole("ptr", "val")
ENTRY: Final = XEN["multicall_entry"].whole("op", "result", "args")


class Lazy(enum.IntEnum):
    """``enum paravirt_lazy_mode``."""

    NONE = 0
    MMU = 1
    CPU = 2
    FLUSH = 3


@attrs.define
class _Call:
    """One entry: number and arguments; ``data`` is an array in memory whose address is argument ``at``."""

    nr: int
    args: list[int]
    data: bytearray = attrs.field(factory=bytearray)
    at: int = 0


class BatchState(NamedTuple):
    """A batch in a snapshot: number, arguments, data and place of each call; then the attributes."""

    calls: tuple[tuple[int, tuple[int, ...], bytes, int], ...]
    mode: int
    resume_mmu: bool
    failed: int


class Multicalls:
    """One vCPU's batch. Arguments in memory go on the guest's stack, as local variables of the calling code would.

    Attributes:
        mode: the lazy mode in force.
        resume_mmu: an MMU batch was interrupted by a context switch (TIF_LAZY_MMU_UPDATES).
        failed: calls that Xen refused so far.
    """

    def __init__(self, platform: XenPlatform, cpu: Vcpu) -> None:
        self._platform = platform
        self._cpu = cpu
        self._calls: list[_Call] = []
        self.mode = Lazy.NONE
        self.resume_mmu = False
        self.failed = 0

    # --- filling ---------------------------------------------------------------------------------------------------

    def add(self, nr: Hypercall, *args: int, data: bytes = b"", at: int = 0) -> None:
        """Append a call; a full batch is sent first."""
        # Full of entries or of bytes, as the kernel's own buffer would be.
        if len(self._calls) == MC_BATCH or self._argument_bytes() + len(data) > MC_ARGS:
            self.flush()
        self._calls.append(_Call(nr, list(args), bytearray(data), at))

    def update_entry(self, machine_address: int, value: int, kind: int = 0) -> None:
        """An mmu_update; it joins the one before it if that is the last call and there is room."""
        data = UPDATE.at(self._bits).form.pack(machine_address | kind, value)
        last = self._calls[-1] if self._calls else None
        # One hypercall for as many updates as fit: that is what a batch is for.
        if last is not None and last.nr == Hypercall.MMU_UPDATE and self._argument_bytes() + len(data) <= MC_ARGS:
            last.data += data
            last.args[1] += 1
        else:
            self.add(Hypercall.MMU_UPDATE, 0, 1, 0, DOMID_SELF, data=data)

    def extended(
        self, command: int, arg1: int | None = None, arg2: int | None = None, *, mask: bytes = b"", joins: bool = False
    ) -> None:
        """An mmuext_op of one, with the arguments that the command has; ``mask`` is a vCPU bitmap, arg2 its address.

        What ``joins`` may be part of the call before it, where a kernel does that.
        """
        del joins
        operation = OPERATION.at(self._bits).form.pack(command, arg1 or 0, arg2 or 0)
        self.add(Hypercall.MMUEXT_OP, 0, 1, 0, DOMID_SELF, data=operation + mask)

    def update_va_mapping(self, va: int, entry: int, flags: int = 0) -> None:
        """An update_va_mapping, with the entry split for a 32-bit guest."""
        self.add(Hypercall.UPDATE_VA_MAPPING, *self.va_arguments(va, entry, flags))

    def va_arguments(self, va: int, entry: int, flags: int) -> tuple[int, ...]:
        """Arguments of update_va_mapping in the guest's width."""
        # A 32-bit guest passes a 64-bit entry in two arguments.
        return (va, entry, flags) if self._bits == 64 else (va, entry & 0xFFFF_FFFF, entry >> 32, flags)

    def update_descriptor(self, machine_address: int, descriptor: int) -> None:
        """An update_descriptor, split likewise."""
        if self._bits == 64:
            self.add(Hypercall.UPDATE_DESCRIPTOR, machine_address, descriptor)
            return
        halves = [value >> shift & 0xFFFF_FFFF for value in (machine_address, descriptor) for shift in (0, 32)]
        self.add(Hypercall.UPDATE_DESCRIPTOR, *halves)

    @property
    def _bits(self) -> int:
        return self._platform.hv.abi.bits

    def _argument_bytes(self) -> int:
        return sum(len(call.data) for call in self._calls)

    def after(self, function: str, data: int) -> None:
        """A kernel that wants to know when this has been sent has a function of its own called."""

    # --- sending ---------------------------------------------------------------------------------------------------

    def issue(self, mode: Lazy) -> int:
        """``xen_mc_issue``: send the batch unless this lazy mode lets it wait; the number of refused calls."""
        return 0 if self.waits(mode) else self.flush()

    def waits(self, mode: Lazy) -> bool:
        """Whether a lazy mode is in force here and now."""
        return self.mode == mode

    def flush(self) -> int:
        """Send the batch: a single call directly, more as a multicall. Gives the number of calls that were refused."""
        calls, self._calls = self._calls, []
        if not calls:
            return 0
        addresses, data, base = self._place(calls)
        for call, address in zip(calls, addresses, strict=True):
            if call.data:
                call.args[call.at] = address
        self._point_at_masks(calls, addresses, data, base)
        # A call by itself needs no multicall, and its arguments lie on the stack alone.
        if len(calls) == 1:
            if data:
                self._cpu.write_virtual(base, bytes(data))
            results = [self._platform.hypercall(self._cpu, calls[0].nr, *calls[0].args)]
        else:
            results = self._multicall(calls, data, base)
        bad = [(call.nr, result) for call, result in zip(calls, results, strict=True) if result < 0]
        for nr, result in bad:
            # A refused call is told and goes on: the kernel's own code warns and goes on.
            self._platform.machine.log.record(MC_FLUSH, self._cpu.index, op=nr, result=result)
        self.failed += len(bad)
        return len(bad)

    def _place(self, calls: list[_Call]) -> tuple[list[int], bytearray, int]:
        """Where each call's data goes below the stack pointer: addresses, all the bytes, and where they begin."""
        size = sum(len(call.data) for call in calls)
        # Below the stack pointer, where an interrupt of this vCPU could write, no further than the red zone.
        base = (self._cpu.rsp - _RED_ZONE - size) & ~0xF
        data = bytearray()
        addresses = []
        for call in calls:
            addresses.append(base + len(data))
            data += call.data
        return addresses, data, base

    def _point_at_masks(self, calls: list[_Call], addresses: list[int], data: bytearray, base: int) -> None:
        """An mmuext_op with a bitmap behind it: arg2 of the operation is the bitmap's address."""
        size, arg2 = MMUEXT_OP.size(self._bits), MASK.at(self._bits)
        for call, address in zip(calls, addresses, strict=True):
            if call.nr == Hypercall.MMUEXT_OP and len(call.data) > size:
                arg2.form.pack_into(data, address - base + arg2.offset, address + size)

    def _multicall(self, calls: list[_Call], data: bytearray, base: int) -> list[int]:
        form, mask = ENTRY.at(self._bits).form, self._platform.hv.abi.mask
        table = (base - form.size * len(calls)) & ~0xF
        # Entries lie below the arguments they point to, as ``xen_mc_flush`` builds them on its stack.
        raw = b"".join(form.pack(call.nr, 0, *(value & mask for value in (call.args + [0] * 6)[:6])) for call in calls)
        self._cpu.write_virtual(table, raw.ljust(base - table, b"\0") + bytes(data))
        if self._platform.hypercall(self._cpu, Hypercall.MULTICALL, table, len(calls)) < 0:
            return [-1] * len(calls)
        after = self._cpu.read_virtual(table, len(raw))
        sign = mask ^ mask >> 1
        # The result is a signed long; negative is an errno.
        return [(result ^ sign) - sign for _op, result, *_args in form.iter_unpack(after)]

    # --- lazy modes ------------------------------------------------------------------------------------------------

    def enter(self, mode: Lazy) -> None:
        """``paravirt_enter_lazy_mmu`` and ``_cpu``."""
        self.mode = mode

    def leave(self) -> None:
        """Everything batched takes effect, then calls are no longer held back."""
        self.flush()
        self.mode = Lazy.NONE

    def flush_mmu(self) -> None:
        """Everything batched takes effect, and later calls wait again."""
        if self.mode == Lazy.MMU:
            self.flush()

    def start_switch(self, task: int) -> None:
        """A task is switched away from: its MMU batch is ended and will be resumed; CPU mode begins."""
        del task
        # An MMU batch is interrupted by the switch and resumed after it.
        if self.mode == Lazy.MMU:
            self.leave()
            self.resume_mmu = True
        self.enter(Lazy.CPU)

    def end_switch(self, task: int) -> None:
        """A task has been switched to: it goes on with the batch that it had."""
        del task
        self.leave()
        if self.resume_mmu:
            self.resume_mmu = False
            self.enter(Lazy.MMU)

    def save(self) -> BatchState:
        """State for a snapshot."""
        calls = tuple((call.nr, tuple(call.args), bytes(call.data), call.at) for call in self._calls)
        return BatchState(calls, int(self.mode), self.resume_mmu, self.failed)

    def load(self, saved: BatchState) -> None:
        """Take over what ``save`` gave."""
        calls, mode, self.resume_mmu, self.failed = saved
        self.mode = Lazy(mode)
        self._calls = [_Call(nr, list(args), bytearray(data), at) for nr, args, data, at in calls]
