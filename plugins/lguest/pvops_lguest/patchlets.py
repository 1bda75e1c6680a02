"""lguest's four patchlets: the interrupt flag is a word in memory, so each op is one move.

Source: lguest_asm.S (2.6.23) and i386_head.S (2.6.24); lengths 10, 10, 5 and 5 bytes.
"""

from __future__ import annotations

from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS
from pvops_core.patching.patchlets import Patchlet

LGUEST_LAYOUTS = tuple(
    layout.name for layout in LAYOUTS.values() if layout.kind is MachineKind.I386 and layout.has_slot("restore_fl")
)
"""Layouts of kernels that lguest hosted: 32-bit ones without PAE whose table has the interrupt flag's ops."""


def _patchlet(op: str, asm: str, code: str) -> Patchlet:
    return Patchlet(op=op, asm=asm, code=code, layouts=LGUEST_LAYOUTS)


LGUEST_PATCHLETS = (
    _patchlet("irq_disable", "mov dword ptr [{lguest_data}], 0", "c7 05 {lguest_data:abs32} 00 00 00 00"),
    _patchlet("irq_enable", "mov dword ptr [{lguest_data}], 0x200", "c7 05 {lguest_data:abs32} 00 02 00 00"),
    _patchlet("restore_fl", "mov dword ptr [{lguest_data}], eax", "a3 {lguest_data:abs32}"),
    _patchlet("save_fl", "mov eax, dword ptr [{lguest_data}]", "a1 {lguest_data:abs32}"),
)
