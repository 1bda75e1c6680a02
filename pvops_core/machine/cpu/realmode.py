"""The state in which a start-up message lets a processor begin: real mode, from which it takes itself further.

Source: Intel SDM volume 3, 9.4.4 (the start-up message) and table 9-1 (registers after INIT). The engine executes
16-bit code by itself. What the machine does for a guest in Python, exceptions above all, is not done for real mode:
code there has interrupts off and must not fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.segmentation.segments import Descriptor
from pvops_core.x86 import CR0_PE, CR0_PG, CR4_PAE, MSR_EFER

if TYPE_CHECKING:
    from pvops_core.machine.cpu.core import Core
    from pvops_core.machine.cpu.segmentation.segments import HiddenState
    from pvops_core.machine.engines import Context, Engine

_CR0_AFTER_INIT: Final = 0x6000_0010  # CD, NW and ET (SDM volume 3, table 9-1)
_GENERAL: Final = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp")
_GENERAL_64: Final = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
_CODE, _DATA = 0x9B, 0x93  # present, accessed; code that may be read, data that may be written
_LIMIT: Final = 0xFFFF


def _segment(base: int, access: int) -> Descriptor:
    """A present segment of 64 KiB, 16 bits wide."""
    return Descriptor((base & 0xFFFF) << 16 | _LIMIT, base & 0xFF00_0000 | access << 8 | base >> 16 & 0xFF)


def enter_real_mode(vcpu: Core, engine: Engine, context: Context, hidden: HiddenState, page: int) -> None:
    """Put a vCPU at the beginning of a page below 1 MiB, in real mode, everything else as after INIT."""
    if vcpu.long_mode and not vcpu.cr0 & CR0_PG:  # as an engine begins; only switching paging off ends long mode
        vcpu.cr4 = CR4_PAE
        vcpu.cr0 = CR0_PG | CR0_PE
    vcpu.cr0 = _CR0_AFTER_INIT
    vcpu.set_msr(MSR_EFER, 0)
    for name in ("cr2", "cr3", "cr4"):
        vcpu.set(name, 0)
    for name in _GENERAL_64 if vcpu.machine.kind.bits == 64 else _GENERAL:
        vcpu.set(name, 0)
    for name in ("gdtr", "idtr", "ldtr", "tr"):
        vcpu.set_table(name, 0, _LIMIT)
    vcpu.rflags = 2  # bit 1 is always set
    engine.save(context)
    for name in ("ds", "es", "fs", "gs"):
        hidden.load(name, 0, _segment(0, _DATA))
    # A start-up message's vector is the page that code begins in (SDM volume 3, 8.4.3): CS is the page's paragraph.
    hidden.load_both((page << 8, _segment(page << 12, _CODE)), (0, _segment(0, _DATA)))
    hidden.set_cpl(0)
    engine.restore(context)
    # What was translated with paging on must not be found by an address that is physical now.
    engine.flush_tlb()
    vcpu.rip = 0
