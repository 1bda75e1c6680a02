"""Writable page tables, any other store: the processor carries it out on a copy of the table, and the copy is checked.

Few kinds of instruction write page tables often (``ptwr`` knows them). For the rest there is no second list of what
each does: between two slices the faulting address is mapped to a copy of the table, writable; the vCPU executes its one
instruction; then the mapping is as it was, and the entry that differs in the copy is checked like any update. If it may
not be, the vCPU is put back before the instruction and gets its page fault.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.patching.code.disasm import memory_size
from pvops_xen.hypervisor.abi import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory import update
from pvops_xen.hypervisor.memory.walk import guest_l1e
from pvops_xen.hypervisor.processor.opcodes import fetch
from pvops_xen.hypervisor.processor.traps import PF_PROT, PF_WRITE, inject_page_fault

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_LARGEST: Final = 8


def dry_run(hv: Hypervisor, cpu: Vcpu, address: int, mfn: int) -> bool:
    """Have the instruction at RIP, which stores to an L1 table, carried out on a copy before the next slice.

    False if Xen's emulator would not have it: the store is larger than an entry, not aligned, or none.
    """
    size = memory_size(fetch(hv, cpu, cpu.rip), hv.abi.bits)
    # ``ptwr_emulated_update`` refuses what crosses an entry or is not aligned to its own size.
    if not 0 < size <= _LARGEST or size & size - 1 or address & size - 1:
        hv.log(f"ptwr_emulate: bad access (addr={address:x}, bytes={size})")
        return False
    hv.machine.defer(partial(_dry_run, hv, cpu, address, mfn))
    return True


def _dry_run(hv: Hypervisor, cpu: Vcpu, address: int, mfn: int) -> None:
    place = guest_l1e(hv, cpu.index, address)
    # Between asking and doing another vCPU may have changed the mapping.
    if place is None or hv.domain.crashed:
        return
    memory = hv.memory
    table = memory.read(mfn << PAGE_SHIFT, PAGE_SIZE)
    registers = cpu.save_registers()
    mapping = memory.u64(place)
    # Xen's own scratch page: no guest can name it.
    memory.write(hv.scratch << PAGE_SHIFT, table)
    memory.set_u64(place, hv.scratch << PAGE_SHIFT | mapping & ~pte.ADDRESS | pte.RW)
    # The processor must not go on with the read-only translation that it has faulted on.
    cpu.flush_tlb()
    try:
        hv.machine.step(cpu)
    finally:
        memory.set_u64(place, mapping)
        cpu.flush_tlb()
    # Refused: as if nothing had happened but the page fault.
    if not _take_over(hv, mfn, table):
        cpu.load_registers(registers)
        inject_page_fault(hv, cpu, PF_PROT | PF_WRITE, address)
        return
    hv.stats.page_table_updates += 1
    hv.stats.traps["emulated_pte_write"] += 1


def _take_over(hv: Hypervisor, mfn: int, table: bytes) -> bool:
    """Make the change that the copy shows in the table itself, if it may be made."""
    copy = hv.memory.read(hv.scratch << PAGE_SHIFT, PAGE_SIZE)
    # By entries: an instruction of eight bytes changes one, but a repeated one could change more.
    slots = np.flatnonzero(np.frombuffer(copy, "<u8") != np.frombuffer(table, "<u8")).tolist()
    for slot in slots:
        at = slot * 8 & PAGE_MASK
        error = update.modify(hv.validator, mfn << PAGE_SHIFT | at, int.from_bytes(copy[at : at + 8], "little"))
        if error:
            hv.log(f"ptwr_emulate: could not get_page_from_l1e() {error}")
            return False
    return True
