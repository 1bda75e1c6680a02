"""Calls for those who control Xen or its hardware: what each answers a domain that does not.

Most look at their argument before they look at the caller, so a bad pointer or interface version shows first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    DOMID_SELF,
    E2BIG,
    EACCES,
    EBADRQC,
    EINVAL,
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
_HVM_OPS: Final = frozenset({0, 1, 5, 9, 23, 25})  # set_param get_param flush_tlbs pagetable_dying upcall_vector altp2m
_XENOPROF_LAST: Final = 16
_XENOPROF_OPEN: Final = {0: -ENODEV, 9: -EPERM, 13: -EPERM, 14: -EPERM}  # init, the virtual interrupt's, get_buffer
_DM_OP_BUFFERS: Final = 3


def denied(hv: Hypervisor, cpu: Vcpu, *args: int) -> int:
    """kexec_op, hypfs_op, mca: the caller is looked at first."""
    del hv, cpu, args
    return -EPERM


def _header(hv: Hypervisor, cpu: Vcpu, argument: int) -> tuple[int, int]:
    """Command and interface version."""
    raw = access.read(hv, cpu, argument, 8)
    return int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:], "little")


def platform_op(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``platform_op(op)``."""
    return -EPERM if _header(hv, cpu, argument)[1] == _PLATFORM_VERSION else -EACCES


def sysctl(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``sysctl(op)``."""
    return -EPERM if _header(hv, cpu, argument)[1] == _SYSCTL_VERSION else -EACCES


def domctl(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``domctl(op)``."""
    command, version = _header(hv, cpu, argument)
    if version != _DOMCTL_VERSION:
        return -EACCES
    if command not in _DOMCTL_WITHOUT_DOMAIN and not _exists(hv, _domid(hv, cpu, argument + 8)):
        return -ESRCH
    return -EPERM


def paging_domctl_cont(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """What Xen goes on with a long domctl by: a guest cannot begin there."""
    command, version = _header(hv, cpu, argument)
    if version != _DOMCTL_VERSION or command != _SHADOW_OP:
        return -EBADRQC
    return -EPERM if _exists(hv, _domid(hv, cpu, argument + 8)) else -ESRCH


def hvm_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``hvm_op(op, arg)``: neither this domain nor dom0 is an HVM one."""
    if command in {0, 1} and not _exists(hv, _domid(hv, cpu, argument), self_too=True):
        return -ESRCH
    return -EINVAL if command in _HVM_OPS else -ENOSYS


def dm_op(hv: Hypervisor, cpu: Vcpu, domid: int, count: int, buffers: int) -> int:
    """``dm_op(domid, nr_bufs, bufs)``: no domain here has a device model."""
    if count > _DM_OP_BUFFERS:
        return -E2BIG
    access.read(hv, cpu, buffers, 2 * hv.abi.word * count)
    if not count:
        return -EINVAL
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
