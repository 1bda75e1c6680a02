"""``physdev_op``: the I/O privilege level, and what a domain without devices is answered (xen/arch/x86/physdev.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import DOMID_SELF, EBUSY, EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH, PhysdevOp
from pvops_xen.hypervisor.memory.frames import FrameType

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

PIRQS: Final = 256  # interrupt numbers that a domain could name
_FIRST_GSI: Final = 16  # after the ISA interrupts
_GSIS: Final = 24  # of the host's one I/O APIC
_NEEDS_EOI: Final = 1
_GSI, _MULTI_MSI = 1, 4
_BITMAP_BYTES: Final = 8192


def _set_iopl(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    level = access.read_u32(hv, cpu, argument)
    if level > 3:
        return -EINVAL
    hv.state(cpu).iopl = level
    cpu.unstub_ports()
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
    cpu.unstub_ports()
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
    """``get_free_pirq``: a number that nobody has; of GSIs from below, of all others from above."""
    kind = int.from_bytes(access.read(hv, cpu, argument, 8)[:4], "little")
    numbers = [*range(_FIRST_GSI, _GSIS)] if kind == _GSI else []
    numbers += reversed(range(_GSIS, PIRQS))
    free = next((number for number in numbers if number not in hv.domain.pirqs), None)
    if free is None:
        return -ENOSPC
    hv.domain.pirqs.add(free)
    access.write_u32(hv, cpu, argument + 4, free)
    return 0


def _map_pirq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    size = 40 if hv.abi.bits == 64 else 36
    raw = access.read(hv, cpu, argument, size)
    table = int.from_bytes(raw[size - 8 :], "little")
    if int.from_bytes(raw[4:8], "little") == _MULTI_MSI and table:
        return -EINVAL
    return _of_domain(hv, raw)


def _unmap_pirq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return _of_domain(hv, access.read(hv, cpu, argument, 8))


def _of_domain(hv: Hypervisor, raw: bytes) -> int:
    """For who has a device model in charge of the domain: it is looked for before that."""
    known = int.from_bytes(raw[:2], "little") in {0, DOMID_SELF, hv.domain.domid}
    return -EPERM if known else -ESRCH


def _setup_gsi(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return -EPERM if int.from_bytes(access.read(hv, cpu, argument, 8)[:4], "little") < _GSIS else -EINVAL


def _manage_pci_add_ext(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    _, extended, virtual = struct.unpack_from("<I2I", access.read(hv, cpu, argument, 16))
    return -EINVAL if extended > 1 or virtual > 1 else -EPERM


def _apic(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    access.read(hv, cpu, argument, hv.abi.word + 8)
    return -EPERM


def _unmask_notify(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """There is no line to unmask."""
    del hv, cpu, argument
    return 0


def _refused(hv: Hypervisor, cpu: Vcpu, argument: int, *, size: int) -> int:
    """For who owns the hardware; ``size`` bytes are read before that is found."""
    access.read(hv, cpu, argument, size)
    return -EPERM


def _denied(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """For who owns the hardware: who asks is looked at before what."""
    del hv, cpu, argument
    return -EPERM


_OPERATIONS: Final[dict[int, Callable[[Hypervisor, Vcpu, int], int]]] = {
    PhysdevOp.IRQ_UNMASK_NOTIFY: _unmask_notify,
    PhysdevOp.IRQ_STATUS_QUERY: _status,
    PhysdevOp.SET_IOPL: _set_iopl,
    PhysdevOp.SET_IOBITMAP: _set_iobitmap,
    PhysdevOp.APIC_READ: _apic,
    PhysdevOp.APIC_WRITE: _apic,
    PhysdevOp.ALLOC_IRQ_VECTOR: partial(_refused, size=8),
    PhysdevOp.EOI: _eoi,
    PhysdevOp.MAP_PIRQ: _map_pirq,
    PhysdevOp.UNMAP_PIRQ: _unmap_pirq,
    PhysdevOp.MANAGE_PCI_ADD: partial(_refused, size=2),
    PhysdevOp.MANAGE_PCI_REMOVE: partial(_refused, size=2),
    PhysdevOp.PIRQ_EOI_GMFN_V1: _eoi_frame,
    PhysdevOp.RESTORE_MSI: partial(_refused, size=2),
    PhysdevOp.MANAGE_PCI_ADD_EXT: _manage_pci_add_ext,
    PhysdevOp.SETUP_GSI: _setup_gsi,
    PhysdevOp.GET_FREE_PIRQ: _free_pirq,
    PhysdevOp.PCI_MMCFG_RESERVED: _denied,
    PhysdevOp.PCI_DEVICE_ADD: partial(_refused, size=12),
    PhysdevOp.PCI_DEVICE_REMOVE: partial(_refused, size=4),
    PhysdevOp.RESTORE_MSI_EXT: partial(_refused, size=4),
    PhysdevOp.PIRQ_EOI_GMFN_V2: _eoi_frame,
    PhysdevOp.DBGP_OP: _denied,
    PhysdevOp.PREPARE_MSIX: partial(_refused, size=4),
    PhysdevOp.RELEASE_MSIX: partial(_refused, size=4),
}


def physdev_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``physdev_op(cmd, arg)``."""
    operation = _OPERATIONS.get(command)
    return operation(hv, cpu, argument) if operation else -ENOSYS


def physdev_op_compat(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The call of Xen 3.0.2 and before: the command comes in front of the structure, and any may."""
    size = 24 if hv.abi.bits == 64 else 16
    command = int.from_bytes(access.read(hv, cpu, argument, size)[:4], "little")
    return physdev_op(hv, cpu, command, argument + hv.abi.word)
