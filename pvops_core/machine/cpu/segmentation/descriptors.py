"""Reading descriptors from the tables in guest memory, with the faults of a bad selector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.segmentation.segments import Descriptor
from pvops_core.x86 import GP

if TYPE_CHECKING:
    from pvops_core.machine.cpu.core import Core

_TABLE_INDICATOR = 4  # of a selector: the LDT (Intel SDM volume 3, 3.4.2)


def selector_fault(vector: int, selector: int, why: str, ext: int = 0) -> GuestFault:
    """A fault whose error code names a selector."""
    # Bits 0 and 1 are EXT and IDT in an error code, RPL in a selector; TI stays (SDM volume 3, 6.13).
    return GuestFault(f"selector {selector:#x}: {why}", vector=vector, error_code=selector & 0xFFFC | ext)


def descriptor_address(vcpu: Core, selector: int, vector: int = GP, ext: int = 0) -> int:
    """Linear address of a selector's descriptor.

    Raises:
        GuestFault: with ``vector`` for a null selector or one outside its table.
    """
    if not selector & 0xFFFC:
        raise GuestFault("null selector", vector=vector, error_code=ext)
    table = vcpu.table("ldtr" if selector & _TABLE_INDICATOR else "gdtr")
    # A descriptor's last byte must be within the limit, and a limit is the last byte (SDM volume 3, 3.5.1).
    if table.limit == 0 or (selector | 7) > table.limit:
        raise selector_fault(vector, selector, "outside its table", ext)
    return int(table.base) + (selector & 0xFFF8)


def read_descriptor(vcpu: Core, selector: int, vector: int = GP, ext: int = 0) -> Descriptor:
    """The descriptor of a selector; GuestFault ``vector`` where there is none."""
    address = descriptor_address(vcpu, selector, vector, ext)
    return Descriptor.of(vcpu.virtual.number(address, 8, system=True))
