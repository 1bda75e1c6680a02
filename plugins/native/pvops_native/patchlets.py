"""Bare metal's patchlets: for each op the instructions that may stand in place of its call, as assembly and as bytes.

Source: arch/i386/kernel/paravirt.c, DEF_NATIVE (2.6.23, 2.6.24); arch/x86/kernel/paravirt_patch.c, struct patch_xxl
(2019) for both word sizes; asm/paravirt.h, ALT_NOT and asm/qspinlock.h (6.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from pvops_core.patching.patchlets import Patchlet

if TYPE_CHECKING:
    from pvops_core.ops import Layout

IDENTITIES: Final = frozenset({"pte_val", "pmd_val", "pgd_val", "make_pte", "make_pmd", "make_pgd"})
"""Conversions that 2.6.23 makes nops of: the argument is already where the result belongs."""

_I386: Final = {
    "save_fl": ("pushfd; pop eax", "9c 58"),
    "restore_fl": ("push eax; popfd", "50 9d"),
    "irq_disable": ("cli", "fa"),
    "irq_enable": ("sti", "fb"),
    "iret": ("iretd", "cf"),
    "irq_enable_sysexit": ("sti; sysexit", "fb 0f 35"),
    "read_cr2": ("mov eax, cr2", "0f 20 d0"),
    "read_cr3": ("mov eax, cr3", "0f 20 d8"),
    "write_cr3": ("mov cr3, eax", "0f 22 d8"),
    "clts": ("clts", "0f 06"),
    "read_tsc": ("rdtsc", "0f 31"),
}
_I386_6_1: Final = {
    "queued_spin_unlock": ("mov byte ptr [eax], 0", "c6 00 00"),
    "vcpu_is_preempted": ("xor eax, eax", "31 c0"),
}
# Argument and result have registers of their own on x86_64, so the identity is a move.
_IDENTITY_64: Final = ("mov rax, rdi", "48 89 f8")
_X86_64: Final = {
    "save_fl": ("pushfq; pop rax", "9c 58"),
    "irq_disable": ("cli", "fa"),
    "irq_enable": ("sti", "fb"),
    "read_cr2": ("mov rax, cr2", "0f 20 d0"),
    "read_cr3": ("mov rax, cr3", "0f 20 d8"),
    "write_cr3": ("mov cr3, rdi", "0f 22 df"),
    "wbinvd": ("wbinvd", "0f 09"),
    **dict.fromkeys([f"{level}_val" for level in ("pte", "pmd", "pud", "p4d", "pgd")], _IDENTITY_64),
    **dict.fromkeys([f"make_{level}" for level in ("pte", "pmd", "pud", "p4d", "pgd")], _IDENTITY_64),
    "queued_spin_unlock": ("mov byte ptr [rdi], 0", "c6 07 00"),
    # 48 31 c0 although 31 c0 would do: it is what 6.1 has.
    "vcpu_is_preempted": ("xor rax, rax", "48 31 c0"),
}


def _declare(table: Mapping[str, tuple[str, str]], layouts: str) -> tuple[Patchlet, ...]:
    return tuple(Patchlet(op, asm=asm, code=code, layouts=(layouts,)) for op, (asm, code) in table.items())


NATIVE_PATCHLETS: Final = (
    *_declare(_I386, "2.6.*"),
    *_declare(_I386_6_1, "6.1-32"),
    *_declare(_X86_64, "6.1-64"),
)


@cache
def patchlets_of(layout: Layout) -> Mapping[str, Patchlet]:
    """The patchlets of one layout, by op."""
    return {patchlet.op: patchlet for patchlet in NATIVE_PATCHLETS if patchlet.serves(layout)}
