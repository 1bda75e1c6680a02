"""The guest's address space as Xen sees it: which machine address a kernel's access goes to, walked in Python.

Page tables are valid here by construction, since Xen has checked every entry, so a walk need not look for reserved
bits or frames that do not exist. Every page of a 64-bit guest is a user page to the processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.cpu.faults import PageFault
from pvops_xen.hypervisor.abi import PAGE_MASK
from pvops_xen.hypervisor.memory import entries as pte

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory, Vcpu
    from pvops_xen.hypervisor.state import Domain

_WRITE: Final = 2
_PROTECTION: Final = 1
_ADDRESS: Final = pte.ADDRESS
_RW: Final = pte.RW


def _fault(va: int, error_code: int) -> PageFault:
    return PageFault(f"page fault at {va:#x}", error_code=error_code, address=va)


@attrs.define(eq=False)
class GuestSpace:
    """Translations for the vCPUs of one domain.

    Attributes:
        memory: machine memory.
        domain: the domain.
        words: machine memory as 64-bit words.
    """

    memory: PhysicalMemory
    domain: Domain
    words: memoryview = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Look at memory as words: an element of the view is read in a tenth of the time of a checked access."""
        self.words = memoryview(self.memory.array.data).cast("Q")

    def root(self, index: int) -> int:
        """Machine frame of the root that a vCPU runs on."""
        state = self.domain.vcpus[index]
        # 32-bit guests have one root for both modes.
        return state.guest_table if state.in_kernel or self.domain.abi.bits == 32 else state.guest_table_user

    def translate(self, cpu: Vcpu, va: int, *, write: bool = False) -> int:
        """Machine address of a byte of the guest's, with the rights of its kernel.

        Raises:
            PageFault: it is not mapped, or not to be written.
        """
        words = self.words
        if self.domain.abi.bits == 64:
            # A frame has 512 words: its number by 512 is the first
            # The read right is in every entry; only the write right is needed of all levels together.
            entry = allowed = words[(self.root(cpu.index) << 9) + (va >> 39 & 511)]
            if not entry & 1:
                raise _fault(va, _WRITE * write)
            entry = words[((entry & _ADDRESS) >> 3) + (va >> 30 & 511)]
            allowed &= entry
        else:
            allowed = _RW  # the entries of a PAE root have no rights
            entry = words[(self.root(cpu.index) << 9) + (va >> 30 & 511)]
        if not entry & 1:
            raise _fault(va, _WRITE * write)
        entry = words[((entry & _ADDRESS) >> 3) + (va >> 21 & 511)]
        if not entry & 1:
            raise _fault(va, _WRITE * write)
        allowed &= entry
        entry = words[((entry & _ADDRESS) >> 3) + (va >> 12 & 511)]
        if not entry & 1:
            raise _fault(va, _WRITE * write)
        # A kernel of a 64-bit guest runs in ring 3, so that R/W binds it too.
        if write and not allowed & entry & _RW:
            raise _fault(va, _WRITE | _PROTECTION)
        return entry & _ADDRESS | va & PAGE_MASK
