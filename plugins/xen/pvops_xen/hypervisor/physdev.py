"""``physdev_op``: the I/O privilege level, and what a domain without devices is answered (xen/arch/x86/physdev.c)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import DOMID_SELF, EBUSY, EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH, PhysdevOp
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.public import PHYSDEV

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

PIRQS: Final = 256  # interrupt numbers that a domain could name
_FIRST_GSI: Final = 16  # after the ISA interrupts
_GSIS: Final = 24  # of the host's one I/O APIC
_NEEDS_EOI: Final = 1
_GSI, _MULTI_MSI = 1, 4
_BITMAP_BYTES: Final = 8192  # a bit for each port
_IOBITMAP: Final = PHYSDEV["physdev_set_iobitmap"].whole("bitmap", "nr_ports")
_STATUS_OF: Final = PHYSDEV["physdev_irq_status_query"].whole("irq")
_STATUS_FLAGS: Final = PHYSDEV["physdev_irq_status_query"].part("flags")
_FREE_PIRQ: Final = PHYSDEV["physdev_get_free_pirq"].whole("type")
_FREE_PIRQ_NUMBER: Final = PHYSDEV["physdev_get_free_pirq"].part("pirq")
_MAP_PIRQ: Final = PHYSDEV["physdev_map_pirq"].whole("domid", "type", "table_base")
_UNMAP_PIRQ: Final = PHYSDEV["physdev_unmap_pirq"].whole("domid")
_SETUP_GSI: Final = PHYSDEV["physdev_setup_gsi"].whole("gsi")
_PCI_EXT: Final = PHYSDEV["physdev_manage_pci_ext"].whole("is_extfn", "is_virtfn")
_OP: Final = PHYSDEV["physdev_op"]
_COMPAT_OP: Final = _OP.whole("cmd")


def _set_iopl(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    level = access.read_u32(hv, cpu, argument)
    # 0 to 3, as EFLAGS.IOPL has it.
    if level > 3:
        return -EINVAL
    hv.state(cpu).iopl = level
    # The level of the ports has changed, so nothing floats any more.
    cpu.unstub_ports()
    return 0


def _set_iobitmap(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The guest's own permissions for those without the level: a set bit forbids a port."""
    bitmap, ports = access.fetch(hv, cpu, argument, _IOBITMAP)
    # A bit for each port: 8192 bytes of them at most.
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
    (irq,) = access.fetch(hv, cpu, argument, _STATUS_OF)
    if irq >= PIRQS:
        return -EINVAL
    # No line is the domain's, and a line that is not there needs no end of interrupt.
    access.store(hv, cpu, argument, _STATUS_FLAGS, _NEEDS_EOI)
    return 0


def _eoi_frame(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """A frame in which Xen says which lines need an end of interrupt: none ever does."""
    mfn = access.read_word(hv, cpu, argument)
    # Once for all: the guest may not exchange the frame.
    if hv.domain.eoi_frame:
        return -EBUSY
    if hv.validator.get_page_and_type(mfn, FrameType.WRITABLE):
        return -EINVAL
    hv.domain.eoi_frame = mfn
    return 0


def _free_pirq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``get_free_pirq``: a number that nobody has; of GSIs from below, of all others from above."""
    (kind,) = access.fetch(hv, cpu, argument, _FREE_PIRQ)
    # From below for interrupt lines, from above for the rest (``get_free_pirq``).
    numbers = [*range(_FIRST_GSI, _GSIS)] if kind == _GSI else []
    numbers += reversed(range(_GSIS, PIRQS))
    free = next((number for number in numbers if number not in hv.domain.pirqs), None)
    if free is None:
        return -ENOSPC
    hv.domain.pirqs.add(free)
    access.store(hv, cpu, argument, _FREE_PIRQ_NUMBER, free)
    return 0


def _map_pirq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, kind, table = access.fetch(hv, cpu, argument, _MAP_PIRQ)
    # MSIs of several vectors must be in a table, which nobody here has.
    return -EINVAL if kind == _MULTI_MSI and table else _of_domain(hv, domid)


def _unmap_pirq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return _of_domain(hv, *access.fetch(hv, cpu, argument, _UNMAP_PIRQ))


def _of_domain(hv: Hypervisor, domid: int) -> int:
    """For who has a device model in charge of the domain: it is looked for before that."""
    return -EPERM if domid in {0, DOMID_SELF, hv.domain.domid} else -ESRCH


def _setup_gsi(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    (gsi,) = access.fetch(hv, cpu, argument, _SETUP_GSI)
    return -EPERM if 0 <= gsi < _GSIS else -EINVAL


def _manage_pci_add_ext(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    extended, virtual = access.fetch(hv, cpu, argument, _PCI_EXT)
    return -EINVAL if extended > 1 or virtual > 1 else -EPERM


def _unmask_notify(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """There is no line to unmask."""
    del hv, cpu, argument
    return 0


def _refused(hv: Hypervisor, cpu: Vcpu, argument: int, *, reads: str) -> int:
    """For who owns the hardware; a structure is read before that is found."""
    # Read before the caller is looked at, so that a bad pointer is told first.
    access.read(hv, cpu, argument, PHYSDEV[reads].size(hv.abi.bits))
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
    PhysdevOp.APIC_READ: partial(_refused, reads="physdev_apic"),
    PhysdevOp.APIC_WRITE: partial(_refused, reads="physdev_apic"),
    PhysdevOp.ALLOC_IRQ_VECTOR: partial(_refused, reads="physdev_irq"),
    PhysdevOp.EOI: _eoi,
    PhysdevOp.MAP_PIRQ: _map_pirq,
    PhysdevOp.UNMAP_PIRQ: _unmap_pirq,
    PhysdevOp.MANAGE_PCI_ADD: partial(_refused, reads="physdev_manage_pci"),
    PhysdevOp.MANAGE_PCI_REMOVE: partial(_refused, reads="physdev_manage_pci"),
    PhysdevOp.PIRQ_EOI_GMFN_V1: _eoi_frame,
    PhysdevOp.RESTORE_MSI: partial(_refused, reads="physdev_restore_msi"),
    PhysdevOp.MANAGE_PCI_ADD_EXT: _manage_pci_add_ext,
    PhysdevOp.SETUP_GSI: _setup_gsi,
    PhysdevOp.GET_FREE_PIRQ: _free_pirq,
    PhysdevOp.PCI_MMCFG_RESERVED: _denied,
    PhysdevOp.PCI_DEVICE_ADD: partial(_refused, reads="physdev_pci_device_add"),
    PhysdevOp.PCI_DEVICE_REMOVE: partial(_refused, reads="physdev_pci_device"),
    PhysdevOp.RESTORE_MSI_EXT: partial(_refused, reads="physdev_pci_device"),
    PhysdevOp.PIRQ_EOI_GMFN_V2: _eoi_frame,
    PhysdevOp.DBGP_OP: _denied,
    PhysdevOp.PREPARE_MSIX: partial(_refused, reads="physdev_pci_device"),
    PhysdevOp.RELEASE_MSIX: partial(_refused, reads="physdev_pci_device"),
}


def physdev_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``physdev_op(cmd, arg)``."""
    operation = _OPERATIONS.get(command)
    return operation(hv, cpu, argument) if operation else -ENOSYS


def physdev_op_compat(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The call of Xen 3.0.2 and before: the command comes in front of the structure, and any may."""
    (command,) = access.fetch(hv, cpu, argument, _COMPAT_OP)
    return physdev_op(hv, cpu, command, argument + _OP.offset("u", hv.abi.bits))
