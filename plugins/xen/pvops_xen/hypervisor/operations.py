"""What hypercalls are told by arrays in the guest's memory, read for those who look at hypercalls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import MMUEXT_ARGUMENTS, PAGE_SIZE, Hypercall, MmuExt
from pvops_xen.hypervisor.processor.callbacks import TRAP_INFO
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from struct import Struct

    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_MOST: Final = 4096
"""Operations that are read; a kernel's batch has 32."""
_UPDATE: Final = XEN["mmu_update"].whole("ptr", "val")
_OPERATION: Final = XEN["mmuext_op"].whole("cmd", "arg1.mfn", "arg2.src_mfn")
_SET_IOPL: Final = 6
_TO_MANY: Final = frozenset({MmuExt.TLB_FLUSH_MULTI, MmuExt.INVLPG_MULTI})
_Operations = Iterator[tuple[int, ...]]


def operations(hv: Hypervisor, cpu: Vcpu, number: int, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Of a call, with the words that each operation has; none where there is no array, or it cannot be read."""
    reader = _READERS.get(number)
    try:
        # Whoever looks must not disturb the guest: a bad pointer shows as no operations.
        return tuple(reader(hv, cpu, *arguments)) if reader else ()
    except (access.BadHandleError, GuestFault):
        return ()


def _entries(hv: Hypervisor, cpu: Vcpu, address: int, count: int, layout: Struct) -> _Operations:
    # Without MMU_UPDATE_PREEMPTED, the top bit
    return layout.iter_unpack(access.read(hv, cpu, address, layout.size * min(count & 0x7FFF_FFFF, _MOST)))


def _words(hv: Hypervisor, cpu: Vcpu, address: int, count: int, size: int) -> _Operations:
    data = access.read(hv, cpu, address, size * count)
    for at in range(0, len(data), size):
        yield (int.from_bytes(data[at : at + size], "little"),)


def _updates(hv: Hypervisor, cpu: Vcpu, address: int, count: int, *_others: int) -> _Operations:
    yield from _entries(hv, cpu, address, count, _UPDATE.at(hv.abi.bits).form)


def _extended(hv: Hypervisor, cpu: Vcpu, address: int, count: int, *_others: int) -> _Operations:
    for command, *given in _entries(hv, cpu, address, count, _OPERATION.at(hv.abi.bits).form):
        has = MMUEXT_ARGUMENTS.get(MmuExt(command), (1,)) if command in _COMMANDS else (1, 2)
        words = {each: given[each - 1] for each in has}
        # A bitmap of vCPUs is of the guest's width; only the vCPUs that there are count.
        if command in _TO_MANY:  # a pointer to a bitmap
            words[2] = access.read_word(hv, cpu, words[2]) & (1 << len(hv.machine.vcpus)) - 1
        yield command, *words.values()


def _traps(hv: Hypervisor, cpu: Vcpu, address: int) -> _Operations:
    layout = TRAP_INFO.at(hv.abi.bits).form
    for number in range(_MOST if address else 0):
        (trap,) = _entries(hv, cpu, address + number * layout.size, 1, layout)
        # Address 0 ends a trap table, and a call need not have one.
        if not trap[-1]:
            return
        yield trap


def _frames(hv: Hypervisor, cpu: Vcpu, address: int, entries: int) -> _Operations:
    frames = -(-entries * 8 // PAGE_SIZE)
    yield from _words(hv, cpu, address, frames, hv.abi.word)


def _physdev(hv: Hypervisor, cpu: Vcpu, command: int, address: int) -> _Operations:
    if command == _SET_IOPL:
        yield from _words(hv, cpu, address, 1, 4)


_COMMANDS: Final = frozenset(MmuExt)
_READERS: Final[dict[int, Callable[..., _Operations]]] = {
    Hypercall.MMU_UPDATE: _updates,
    Hypercall.MMUEXT_OP: _extended,
    Hypercall.SET_TRAP_TABLE: _traps,
    Hypercall.SET_GDT: _frames,
    Hypercall.PHYSDEV_OP: _physdev,
}
