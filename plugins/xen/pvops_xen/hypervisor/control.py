"""Calls for those who control Xen or its hardware: what each answers a domain that does not.

Most look at their argument before they look at the caller, so a bad pointer or interface version shows first.
"""

from __future__ import annotations

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
from pvops_xen.public import CONTROL, HVM_OP

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

# XENPF_, XEN_SYSCTL_ and XEN_DOMCTL_INTERFACE_VERSION (platform.h, sysctl.h, domctl.h): other callers get -EACCES.
_PLATFORM_VERSION: Final = 0x0300_0001
_SYSCTL_VERSION: Final = 0x15
_DOMCTL_VERSION: Final = 0x15
_DOMCTL_WITHOUT_DOMAIN: Final = frozenset({1, 38, 45})  # createdomain, assign_device and its test name none
_SHADOW_OP: Final = 10
_HVM_PARAMS: Final = 39
_TRACE_BYTES: Final = 28
_XENOPROF_LAST: Final = 16
_XENOPROF_OPEN: Final = {0: -ENODEV, 9: -EPERM, 13: -EPERM, 14: -EPERM}  # init, the virtual interrupt's, get_buffer
_PLATFORM_OP: Final = CONTROL["xen_platform_op"].whole("cmd", "interface_version")
_SYSCTL: Final = CONTROL["xen_sysctl"].whole("cmd", "interface_version")
_DOMCTL: Final = CONTROL["xen_domctl"].whole("cmd", "interface_version", "domain")
_PARAM: Final = HVM_OP["xen_hvm_param"].whole("domid", "index")
_DYING: Final = HVM_OP["xen_hvm_pagetable_dying"].whole("domid")
_TIME: Final = HVM_OP["xen_hvm_get_time"].whole("now")
_TRACE: Final = HVM_OP["xen_hvm_xentrace"].whole("event", "extra_bytes")
_MEM_TYPE: Final = HVM_OP["xen_hvm_get_mem_type"].whole("domid")
_DM_OP_BUF: Final = HVM_OP["xen_dm_op_buf"]
_DM_OP_BUFFERS: Final = 3


def denied(hv: Hypervisor, cpu: Vcpu, *args: int) -> int:
    """kexec_op, hypfs_op, mca: the caller is looked at first."""
    del hv, cpu, args
    return -EPERM


def platform_op(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``platform_op(op)``."""
    _command, version = access.fetch(hv, cpu, argument, _PLATFORM_OP)
    # The version is compared before the caller's rights: a tool of another release is told that first.
    return -EPERM if version == _PLATFORM_VERSION else -EACCES


def sysctl(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``sysctl(op)``."""
    _command, version = access.fetch(hv, cpu, argument, _SYSCTL)
    return -EPERM if version == _SYSCTL_VERSION else -EACCES


def domctl(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``domctl(op)``."""
    command, version, domid = access.fetch(hv, cpu, argument, _DOMCTL)
    if version != _DOMCTL_VERSION:
        return -EACCES
    # A domain that does not exist is found before the caller is refused (``do_domctl``).
    if command not in _DOMCTL_WITHOUT_DOMAIN and not _exists(hv, domid):
        return -ESRCH
    return -EPERM


def paging_domctl_cont(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """What Xen goes on with a long domctl by: a guest cannot begin there."""
    command, version, domid = access.fetch(hv, cpu, argument, _DOMCTL)
    # Only Xen itself may go on with a preempted domctl: its arguments are in a compat structure of its own.
    if version != _DOMCTL_VERSION or command != _SHADOW_OP:
        return -EBADRQC
    return -EPERM if _exists(hv, domid) else -ESRCH


def _hvm_param(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, index = access.fetch(hv, cpu, argument, _PARAM)
    return -EINVAL if index >= _HVM_PARAMS or _exists(hv, domid, self_too=True) else -ESRCH


def _pagetable_dying(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    (domid,) = access.fetch(hv, cpu, argument, _DYING)
    if not _exists(hv, domid, self_too=True):
        return -ESRCH
    return -EINVAL if domid else -EOPNOTSUPP


def _get_time(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The one that any domain may use: nanoseconds since Xen's start."""
    access.store(hv, cpu, argument, _TIME, hv.machine.clock.ns)
    return 0


def _xentrace(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Nobody reads the trace."""
    event, extra = access.fetch(hv, cpu, argument, _TRACE)
    return -EINVAL if extra > _TRACE_BYTES or event >> 12 else 0


def _get_mem_type(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    (domid,) = access.fetch(hv, cpu, argument, _MEM_TYPE)
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
    access.read(hv, cpu, buffers, _DM_OP_BUF.size(hv.abi.bits) * count)
    # ``domid_t`` is 16 bits; what is above is not looked at.
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


def _exists(hv: Hypervisor, domid: int, *, self_too: bool = False) -> bool:
    # dom0 exists always, and this domain; nobody else does here.
    return domid in {0, hv.domain.domid} or (self_too and domid == DOMID_SELF)
