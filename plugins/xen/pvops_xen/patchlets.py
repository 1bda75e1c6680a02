"""Code that may replace the calls of pv_irq_ops in a 32-bit guest with one CPU (arch/i386/xen/xen-asm.S, 2.6.23).

It addresses the guest's own copy of vcpu_info, ``xen_vcpu_info``: pending at 0, mask at 1. Only irq_disable fits the
10-byte sites that C code has; the rest fit where the assembler left 13 bytes or more, or nowhere.
"""

from __future__ import annotations

from typing import Final

from pvops_core.ops import Clobber
from pvops_core.patching.patchlets import Patchlet

_LAYOUTS: Final = ("2.6.*",)

XEN_PATCHLETS: Final = (
    Patchlet(
        op="irq_disable",
        asm="mov byte ptr [{xen_vcpu_info+1}], 1",
        code="c6 05 {xen_vcpu_info+1:abs32} 01",
        layouts=_LAYOUTS,
    ),
    Patchlet(
        op="save_fl",
        asm="test byte ptr [{xen_vcpu_info+1}], 0xff; sete ah; add ah, ah",
        code="f6 05 {xen_vcpu_info+1:abs32} ff 0f 94 c4 00 e4",
        clobbers=Clobber.EAX,
        layouts=_LAYOUTS,
        where_it_fits=True,
    ),
    Patchlet(
        op="irq_enable",
        asm="and word ptr [{xen_vcpu_info}], 0xff; je {.+16}; call {check_events}",
        code="66 81 25 {xen_vcpu_info:abs32} ff 00 74 05 e8 {check_events:rel32}",
        layouts=_LAYOUTS,
        where_it_fits=True,
        keeping=("check_events",),
    ),
    Patchlet(
        op="restore_fl",
        asm=(
            "test ah, 2; sete byte ptr [{xen_vcpu_info+1}]; cmp word ptr [{xen_vcpu_info}], 1; "
            "jne {.+25}; call {check_events}"
        ),
        code=(
            "f6 c4 02 0f 94 05 {xen_vcpu_info+1:abs32} 66 83 3d {xen_vcpu_info:abs32} 01 75 05 e8 {check_events:rel32}"
        ),
        layouts=_LAYOUTS,
        where_it_fits=True,
        keeping=("check_events",),
    ),
)
