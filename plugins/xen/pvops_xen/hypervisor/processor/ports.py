"""I/O ports of a domain without devices: who may reach them, and the two that Xen itself keeps (pv/emul-priv-op.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault, general_protection
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.processor.bounce import in_guest_kernel
from pvops_xen.hypervisor.processor.traps import kernel_ring

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_CMOS_INDEX: Final = 0x70  # RTC_PORT(0): which of the clock's registers port 71H is
_PCI_ADDRESS: Final = 0xCF8  # of configuration mechanism #1
_DWORD: Final = 4


def iopl_ok(hv: Hypervisor, cpu: Vcpu) -> bool:
    """``iopl_ok``: the I/O privilege level against the ring that the guest's mode counts as."""
    return hv.state(cpu).iopl >= (kernel_ring(hv) if in_guest_kernel(hv, cpu) else 3)


def check_allowed(hv: Hypervisor, cpu: Vcpu, port: int, size: int) -> None:
    """``guest_io_okay``: the level, or the bitmap that the guest has given by PHYSDEVOP_set_iobitmap.

    Raises:
        GuestFault: #GP(0): neither allows it.
    """
    state = hv.state(cpu)
    if iopl_ok(hv, cpu):
        return
    # A bit per port: all of those that an access touches must be clear.
    if port + size <= state.iobmp_limit:
        bits = _permission_bits(hv, cpu, state.iobmp + (port >> 3))
        if not bits & ((1 << size) - 1) << (port & 7):
            return
    raise general_protection(f"port {port:#x} without I/O privilege")


def _permission_bits(hv: Hypervisor, cpu: Vcpu, address: int) -> int:
    """Two bytes of the bitmap, from the kernel's address space; what cannot be read allows nothing."""
    with access.as_kernel(hv.state(cpu)):
        # The bitmap's last byte may be its page's last: one byte will do then.
        for size in (2, 1):
            try:
                return int.from_bytes(access.read(hv, cpu, address, size).ljust(2, b"\xff"), "little")
            except (access.BadHandleError, GuestFault):
                continue
    # What cannot be read allows nothing.
    return 0xFFFF


def is_plain(port: int, size: int) -> bool:
    """Nothing is behind a port: it reads as all ones."""
    return not (port <= _CMOS_INDEX < port + size or (port, size) == (_PCI_ADDRESS, _DWORD))


def read(hv: Hypervisor, port: int, size: int) -> int:
    """``guest_io_read``: what was last written to the two that are latches, else all ones."""
    domain = hv.domain
    if (port, size) == (_PCI_ADDRESS, _DWORD):
        return domain.pci_address
    # 0FFH for everything else: no device is there, and nothing answers on the bus.
    data = [domain.cmos_index if each == _CMOS_INDEX else 0xFF for each in range(port, port + size)]
    return int.from_bytes(bytes(data), "little")


def write(hv: Hypervisor, port: int, size: int, value: int) -> None:
    """``guest_io_write``."""
    if (port, size) == (_PCI_ADDRESS, _DWORD):
        hv.domain.pci_address = value & 0xFFFF_FFFF
    elif port <= _CMOS_INDEX < port + size:
        hv.domain.cmos_index = value >> 8 * (_CMOS_INDEX - port) & 0xFF
