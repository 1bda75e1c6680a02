"""lguest's four patchlets: the interrupt flag is a word in memory, so each op is one move.

Source: lguest_asm.S (2.6.23) and i386_head.S (2.6.24); lengths 10, 10, 5 and 5 bytes.
"""

from __future__ import annotations

from pvops_core.ops import Clobber
from pvops_core.patching.patchlets import Patchlet

LGUEST_LAYOUTS = ("2.6.23", "2.6.23-lapic", "2.6.24", "2.6.24-lapic")

LGUEST_PATCHLETS = (
    Patchlet(op="irq_disable", asm="mov dword ptr [{lguest_data}], 0", code="c7 05 {lguest_data:abs32} 00 00 00 00"),
    Patchlet(op="irq_enable", asm="mov dword ptr [{lguest_data}], 0x200", code="c7 05 {lguest_data:abs32} 00 02 00 00"),
    Patchlet(op="restore_fl", asm="mov dword ptr [{lguest_data}], eax", code="a3 {lguest_data:abs32}"),
    Patchlet(
        op="save_fl", asm="mov eax, dword ptr [{lguest_data}]", code="a1 {lguest_data:abs32}", clobbers=Clobber.EAX
    ),
)
