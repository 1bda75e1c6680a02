"""``physdev_op``: the I/O privilege level, and what a domain without devices is answered (xen/arch/x86/physdev.c)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import EBUSY, EINVAL, ENOSYS, EPERM, PhysdevOp
from pvops_xen.hypervisor.frames import FrameType

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

PIRQS: Final = 256  # interrupt numbers that a domain could name
_NEEDS_EOI: Final = 1
_FIRST_FREE: Final = {0: PIRQS - 1, 1: 16}  # MSI from the end down, GSI after the ISA interrupts
_BITMAP_BYTES: Final = 8192
_COMPAT: Final = frozenset(
    {
        PhysdevOp.IRQ_UNMASK_NOTIFY,
        PhysdevOp.IRQ_STATUS_QUERY,
        PhysdevOp.SET_IOPL,
        PhysdevOp.SET_IOBITMAP,
        PhysdevOp.APIC_READ,
        PhysdevOp.APIC_WRITE,
        PhysdevOp.ALLOC_IRQ_VECTOR,
    }
)


def _set_iopl(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    level = access.read_u32(hv, cpu, argument)
    if level > 3:
        return -EINVAL
    hv.state(cpu).iopl = level
    cpu.ground_ports()
    return 0


def _set_iobitmap(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The guest's own permissions for those without the level: a set bit forbids a port."""
    word = hv.abi.word
    raw = access.read(hv, cpu, argument, 2 * word)
    bitmap, ports = (int.from_bytes(part, "little") for part in (raw[:word], raw[word:][:4]))
    if ports > 8 * _BITMAP_BYTES or not access.addr_ok(hv.abi, bitmap, _BITMAP_BYTES):
        return -EINVAL
    state = hv.state(cpu)
    state.iobmp, state.iobmp_limit = bitmap, ports
    cpu.ground_ports()
    return 0


def _eoi(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """No interrupt line is the domain's."""
    access.read_u32(hv, cpu, argument)
    return -EINVAL


def _status(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    if int.from_bytes(access.read(hv, cpu, argument, 8)[:4], "little") >= PIRQS:
        return -EINVAL
    access.write_u32(hv, cpu, argument + 4, _NEEDS_EOI)
    return 0


def _eoi_frame(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """A frame in which Xen says which lines need an end of interrupt: none ever does."""
    mfn = access.read_word(hv, cpu, argument)
    if hv.domain.eoi_frame:
        return -EBUSY
    if hv.validator.get_page_and_type(mfn, FrameType.WRITABLE):
        return -EINVAL
    hv.domain.eoi_frame = mfn
    return 0


def _free_pirq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    kind = int.from_bytes(access.read(hv, cpu, argument, 8)[:4], "little")
    if kind not in _FIRST_FREE:
        return -EINVAL
    access.write_u32(hv, cpu, argument + 4, _FIRST_FREE[kind])
    return 0


def _unmask_notify(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """There is no line to unmask."""
    del hv, cpu, argument
    return 0


def _refused(hv: Hypervisor, cpu: Vcpu, argument: int, *, size: int) -> int:
    """For who owns the hardware; ``size`` bytes are read before that is found."""
    access.read(hv, cpu, argument, size)
    return -EPERM


_OPERATIONS: Final[dict[int, Callable[[Hypervisor, Vcpu, int], int]]] = {
    PhysdevOp.IRQ_UNMASK_NOTIFY: _unmask_notify,
    PhysdevOp.IRQ_STATUS_QUERY: _status,
    PhysdevOp.SET_IOPL: _set_iopl,
    PhysdevOp.SET_IOBITMAP: _set_iobitmap,
    PhysdevOp.APIC_READ: partial(_refused, size=16),
    PhysdevOp.APIC_WRITE: partial(_refused, size=16),
    PhysdevOp.ALLOC_IRQ_VECTOR: partial(_refused, size=8),
    PhysdevOp.EOI: _eoi,
    PhysdevOp.MAP_PIRQ: partial(_refused, size=32),
    PhysdevOp.UNMAP_PIRQ: partial(_refused, size=8),
    PhysdevOp.PIRQ_EOI_GMFN_V1: _eoi_frame,
    PhysdevOp.PIRQ_EOI_GMFN_V2: _eoi_frame,
    PhysdevOp.GET_FREE_PIRQ: _free_pirq,
}
_HARDWARE: Final = frozenset(
    {
        PhysdevOp.MANAGE_PCI_ADD,
        PhysdevOp.MANAGE_PCI_REMOVE,
        PhysdevOp.RESTORE_MSI,
        PhysdevOp.MANAGE_PCI_ADD_EXT,
        PhysdevOp.SETUP_GSI,
        PhysdevOp.PCI_MMCFG_RESERVED,
        PhysdevOp.PCI_DEVICE_ADD,
        PhysdevOp.PCI_DEVICE_REMOVE,
        PhysdevOp.RESTORE_MSI_EXT,
        PhysdevOp.DBGP_OP,
        PhysdevOp.PREPARE_MSIX,
        PhysdevOp.RELEASE_MSIX,
    }
)
"""For who owns the hardware; who asks is looked at before what."""


def physdev_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``physdev_op(cmd, arg)``."""
    operation = _OPERATIONS.get(command)
    if operation:
        return operation(hv, cpu, argument)
    return -EPERM if command in _HARDWARE else -ENOSYS


def physdev_op_compat(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The call of Xen 3.0.2 and before: the command comes in front of the structure."""
    command = access.read_u32(hv, cpu, argument)
    return physdev_op(hv, cpu, command, argument + hv.abi.word) if command in _COMPAT else -ENOSYS
