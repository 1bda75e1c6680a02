"""Calls for those who control Xen or its hardware: what each answers a domain that does not.

Most look at their argument before they look at the caller, so a bad pointer or interface version shows first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    DOMID_SELF,
    E2BIG,
    EACCES,
    EBADRQC,
    EINVAL,
    ENODATA,
    ENODEV,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
)

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_PLATFORM_VERSION: Final = 0x0300_0001
_SYSCTL_VERSION: Final = 0x15
_DOMCTL_VERSION: Final = 0x15
_DOMCTL_WITHOUT_DOMAIN: Final = frozenset({1, 38, 45})  # createdomain, assign_device and its test name none
_SHADOW_OP: Final = 10
_HVM_PARAMS: Final = 39
_TRACE_BYTES: Final = 28
_XENOPROF_LAST: Final = 16
_XENOPROF_OPEN: Final = {0: -ENODEV, 9: -EPERM, 13: -EPERM, 14: -EPERM}  # init, the virtual interrupt's, get_buffer
_OP_SIZE: Final = 136  # of xen_platform_op and xen_sysctl, in both widths
_DOMCTL_SIZE: Final = 144
_DM_OP_BUFFERS: Final = 3


def denied(hv: Hypervisor, cpu: Vcpu, *args: int) -> int:
    """kexec_op, hypfs_op, mca: the caller is looked at first."""
    del hv, cpu, args
    return -EPERM


def _header(hv: Hypervisor, cpu: Vcpu, argument: int, size: int) -> tuple[int, int]:
    """Command and interface version, out of a structure that is read as a whole."""
    raw = access.read(hv, cpu, argument, size)
    return int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:8], "little")


def platform_op(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``platform_op(op)``."""
    return -EPERM if _header(hv, cpu, argument, _OP_SIZE)[1] == _PLATFORM_VERSION else -EACCES


def sysctl(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``sysctl(op)``."""
    return -EPERM if _header(hv, cpu, argument, _OP_SIZE)[1] == _SYSCTL_VERSION else -EACCES


def domctl(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``domctl(op)``."""
    command, version = _header(hv, cpu, argument, _DOMCTL_SIZE)
    if version != _DOMCTL_VERSION:
        return -EACCES
    if command not in _DOMCTL_WITHOUT_DOMAIN and not _exists(hv, _domid(hv, cpu, argument + 8)):
        return -ESRCH
    return -EPERM


def paging_domctl_cont(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """What Xen goes on with a long domctl by: a guest cannot begin there."""
    command, version = _header(hv, cpu, argument, _DOMCTL_SIZE)
    if version != _DOMCTL_VERSION or command != _SHADOW_OP:
        return -EBADRQC
    return -EPERM if _exists(hv, _domid(hv, cpu, argument + 8)) else -ESRCH


def _hvm_param(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, index = struct.unpack_from("<H2xI", access.read(hv, cpu, argument, 16))
    return -EINVAL if index >= _HVM_PARAMS or _exists(hv, domid, self_too=True) else -ESRCH


def _pagetable_dying(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid = int.from_bytes(access.read(hv, cpu, argument, 16)[:2], "little")
    if not _exists(hv, domid, self_too=True):
        return -ESRCH
    return -EINVAL if domid else -EOPNOTSUPP


def _get_time(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The one that any domain may use: nanoseconds since Xen's start."""
    access.write(hv, cpu, argument, hv.machine.clock.ns.to_bytes(8, "little"))
    return 0


def _xentrace(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Nobody reads the trace."""
    event, extra = struct.unpack_from("<HH", access.read(hv, cpu, argument, 32))
    return -EINVAL if extra > _TRACE_BYTES or event >> 12 else 0


def _get_mem_type(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid = int.from_bytes(access.read(hv, cpu, argument, 16)[:2], "little")
    if not _exists(hv, domid, self_too=True):
        return -ESRCH
    return -EINVAL if domid else -EPERM


_HVM_OPS: Final[dict[int, Callable[[Hypervisor, Vcpu, int], int]]] = {
    0: _hvm_param,  # set_param
    1: _hvm_param,  # get_param
    5: lambda _hv, _cpu, _argument: -EINVAL,  # flush_tlbs
    9: _pagetable_dying,
    10: _get_time,
    11: _xentrace,
    15: _get_mem_type,
    23: lambda _hv, _cpu, _argument: -EINVAL,  # set_evtchn_upcall_vector
    24: lambda _hv, _cpu, argument: -EINVAL if argument else 0,  # guest_request_vm_event: nobody listens
    25: lambda _hv, _cpu, _argument: -EOPNOTSUPP,  # altp2m: the host's processor cannot
}


def hvm_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``hvm_op(op, arg)``: neither this domain nor dom0 is an HVM one."""
    operation = _HVM_OPS.get(command)
    return operation(hv, cpu, argument) if operation else -ENOSYS


def dm_op(hv: Hypervisor, cpu: Vcpu, domid: int, count: int, buffers: int) -> int:
    """``dm_op(domid, nr_bufs, bufs)``: no domain here has a device model."""
    if not count:
        return -ENODATA
    if count > _DM_OP_BUFFERS:
        return -E2BIG
    access.read(hv, cpu, buffers, 2 * hv.abi.word * count)
    domid &= 0xFFFF  # a domid_t
    if domid in {DOMID_SELF, hv.domain.domid}:
        return -EPERM
    return -ESRCH if domid else -EINVAL


def xenoprof_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``xenoprof_op(op, arg)``: nobody profiles here, and there are no counters."""
    del hv, cpu, argument
    if command > _XENOPROF_LAST:
        return -EINVAL
    return _XENOPROF_OPEN.get(command, -EPERM)


def xenpmu_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``xenpmu_op(op, arg)``: there are no counters, as by default (``vpmu=off``)."""
    del hv, cpu, command, argument
    return -EOPNOTSUPP


def _domid(hv: Hypervisor, cpu: Vcpu, address: int) -> int:
    return int.from_bytes(access.read(hv, cpu, address, 2), "little")


def _exists(hv: Hypervisor, domid: int, *, self_too: bool = False) -> bool:
    return domid in {0, hv.domain.domid} or (self_too and domid == DOMID_SELF)
