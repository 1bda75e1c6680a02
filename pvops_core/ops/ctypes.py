"""The C types that pv ops take and give, with their widths on each kind of machine.

Widths follow the i386 and x86_64 System V ABIs and the kernel's page-table types (``asm/pgtable_types.h``;
before 2.6.25 ``asm-i386/page.h``): a ``pte_t`` and its like are as wide as a page-table entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind

_ENTRY = frozenset(
    {"pte_t", "pmd_t", "pud_t", "p4d_t", "pgd_t", "pgprot_t", "phys_addr_t"}
    | {"pteval_t", "pmdval_t", "pudval_t", "p4dval_t", "pgdval_t"}
)
_LONG = frozenset({"long", "unsigned long"})
_FIXED = {
    "bool": 8,
    "u8": 8,
    "u16": 16,
    "u32": 32,
    "int": 32,
    "unsigned int": 32,
    "enum paravirt_lazy_mode": 32,
    "u64": 64,
    "unsigned long long": 64,
}
_SIGNED = frozenset({"int", "long"})


@attrs.frozen
class CType:
    """A C type by the name that the kernel's headers give it.

    Attributes:
        name: for example ``unsigned long`` or ``const struct desc_ptr *``.
    """

    name: str = attrs.field()

    @name.validator
    def _known(self, _attribute: object, name: str) -> None:
        if not (name.endswith("*") or name in _ENTRY | _LONG | _FIXED.keys()):
            raise ValueError(f"width of C type {name!r} is not known")

    @property
    def pointer(self) -> bool:
        """Whether a value is a guest-virtual address."""
        return self.name.endswith("*")

    @property
    def signed(self) -> bool:
        """Whether a value is sign-extended when it becomes a Python integer."""
        return self.name in _SIGNED

    def bits(self, kind: MachineKind) -> int:
        """Width of a value in bits on a machine of this kind."""
        if self.pointer or self.name in _LONG:
            return kind.bits
        if self.name in _ENTRY:
            return kind.entry_size * 8
        return _FIXED[self.name]
