"""``event_channel_op``: what a domain can do with its channels, and the errors where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    DOMID_SELF,
    EBUSY,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOSPC,
    ENOSYS,
    EPERM,
    ESRCH,
    NR_VIRQS,
    EvtchnOp,
)
from pvops_xen.hypervisor.events import channels, fifo
from pvops_xen.hypervisor.scheduling.livelock import on_send
from pvops_xen.hypervisor.state import Channel, ChannelState
from pvops_xen.public import EVENT_CHANNEL

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_PIRQS: Final = 256  # interrupt numbers that a domain without devices could name
_VIRQ: Final = EVENT_CHANNEL["evtchn_bind_virq"].whole("virq", "vcpu")
_VIRQ_PORT: Final = EVENT_CHANNEL["evtchn_bind_virq"].part("port")
_IPI: Final = EVENT_CHANNEL["evtchn_bind_ipi"].whole("vcpu")
_IPI_PORT: Final = EVENT_CHANNEL["evtchn_bind_ipi"].part("port")
_PIRQ: Final = EVENT_CHANNEL["evtchn_bind_pirq"].whole("pirq")
_INTERDOMAIN: Final = EVENT_CHANNEL["evtchn_bind_interdomain"].whole("remote_dom", "remote_port")
_LOCAL_PORT: Final = EVENT_CHANNEL["evtchn_bind_interdomain"].part("local_port")
_UNBOUND: Final = EVENT_CHANNEL["evtchn_alloc_unbound"].whole("dom", "remote_dom")
_UNBOUND_PORT: Final = EVENT_CHANNEL["evtchn_alloc_unbound"].part("port")
_STATUS: Final = EVENT_CHANNEL["evtchn_status"].whole("dom", "port")
_ANSWER: Final = EVENT_CHANNEL["evtchn_status"].part("status", "vcpu")
_ANSWERS: Final = {
    ChannelState.VIRQ: EVENT_CHANNEL["evtchn_status"].part("status", "vcpu", "u.virq"),
    ChannelState.UNBOUND: EVENT_CHANNEL["evtchn_status"].part("status", "vcpu", "u.unbound.dom"),
    ChannelState.INTERDOMAIN: EVENT_CHANNEL["evtchn_status"].part(
        "status", "vcpu", "u.interdomain.dom", "u.interdomain.port"
    ),
}
_VCPU: Final = EVENT_CHANNEL["evtchn_bind_vcpu"].whole("port", "vcpu")
_RESET: Final = EVENT_CHANNEL["evtchn_reset"].whole("dom")
_CONTROL: Final = EVENT_CHANNEL["evtchn_init_control"].whole("control_gfn", "offset", "vcpu")
_LINK_BITS: Final = EVENT_CHANNEL["evtchn_init_control"].part("link_bits")
_PRIORITY: Final = EVENT_CHANNEL["evtchn_set_priority"].whole("port", "priority")
# as ``evtchn_bind_vcpu`` has them
_BINDABLE: Final = frozenset({ChannelState.VIRQ, ChannelState.UNBOUND, ChannelState.INTERDOMAIN})


def _domain_error(hv: Hypervisor, domid: int) -> int:
    """What asking about a domain gives: 0 for oneself, -EPERM for dom0, -ESRCH for who does not exist."""
    if domid in {DOMID_SELF, hv.domain.domid}:
        return 0
    return -ESRCH if domid else -EPERM


def _bind_virq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    virq, index = access.fetch(hv, cpu, argument, _VIRQ)
    # A per-vCPU virtual interrupt is bound on each vCPU, another on vCPU 0 alone.
    if virq >= NR_VIRQS or (virq not in channels.PER_VCPU_VIRQS and index):
        return -EINVAL
    if index >= len(hv.domain.vcpus):
        return -ENOENT
    bound = hv.domain.vcpus[index].virqs
    # One binding of a virtual interrupt per vCPU (``evtchn_bind_virq``).
    if virq in bound:
        return -EEXIST
    port = channels.allocate(hv, Channel(ChannelState.VIRQ, index, virq))
    if port < 0:
        return port
    bound[virq] = port
    access.store(hv, cpu, argument, _VIRQ_PORT, port)
    return 0


def _bind_ipi(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    (index,) = access.fetch(hv, cpu, argument, _IPI)
    if index >= len(hv.domain.vcpus):
        return -ENOENT
    port = channels.allocate(hv, Channel(ChannelState.IPI, index))
    if port < 0:
        return port
    access.store(hv, cpu, argument, _IPI_PORT, port)
    return 0


def _bind_pirq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """An unprivileged domain owns no interrupt lines."""
    (pirq,) = access.fetch(hv, cpu, argument, _PIRQ)
    return -EINVAL if pirq >= _PIRQS else -EPERM


def _bind_interdomain(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, remote = access.fetch(hv, cpu, argument, _INTERDOMAIN)
    if domid not in {DOMID_SELF, hv.domain.domid}:
        # dom0's channels are its own, and it waits for nobody.
        return -ESRCH if domid else -EINVAL  # dom0 waits for nobody
    if channels.free_port(hv) < 0:
        return -ENOSPC
    channel = channels.find(hv, remote)
    # Only a channel that waits for this very domain is its other end.
    if channel is None or channel.state != ChannelState.UNBOUND or channel.detail != hv.domain.domid:
        return -EINVAL
    local = channels.connect(hv, remote)
    access.store(hv, cpu, argument, _LOCAL_PORT, local)
    return 0


def _alloc_unbound(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, remote = access.fetch(hv, cpu, argument, _UNBOUND)
    error = _domain_error(hv, domid)
    if error:
        return error
    remote = hv.domain.domid if remote == DOMID_SELF else remote
    port = channels.allocate(hv, Channel(ChannelState.UNBOUND, 0, remote))
    if port < 0:
        return port
    access.store(hv, cpu, argument, _UNBOUND_PORT, port)
    return 0


def _close(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    port = access.read_u32(hv, cpu, argument)
    channel = channels.find(hv, port)
    if channel is None or channel.state == ChannelState.CLOSED:
        return -EINVAL
    channels.close(hv, port)
    return 0


def _send(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    port = access.read_u32(hv, cpu, argument)
    on_send(hv, cpu)
    return 0 if channels.find(hv, port) is not None and channels.notify(hv, port) else -EINVAL


def _status(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, port = access.fetch(hv, cpu, argument, _STATUS)
    error = _domain_error(hv, domid)
    if error:
        return error
    channel = channels.find(hv, port)
    if channel is None:
        return -EINVAL
    detail: tuple[int, ...] = ()
    if channel.state == ChannelState.VIRQ:
        detail = (channel.detail,)
    elif channel.state == ChannelState.UNBOUND:
        detail = (channel.detail & 0xFFFF,)
    elif channel.state == ChannelState.INTERDOMAIN:
        detail = hv.domain.domid if channel.sink == channels.LOOP else 0, channel.detail
    access.store(hv, cpu, argument, _ANSWERS.get(channel.state, _ANSWER), channel.state, channel.vcpu, *detail)
    return 0


def _bind_vcpu(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    port, index = access.fetch(hv, cpu, argument, _VCPU)
    if index >= len(hv.domain.vcpus):
        return -ENOENT
    channel = channels.find(hv, port)
    if channel is None or channel.state not in _BINDABLE:
        return -EINVAL
    # A virtual interrupt of a vCPU stays with that vCPU.
    if channel.state == ChannelState.VIRQ and channel.detail in channels.PER_VCPU_VIRQS:
        return -EINVAL
    channel.vcpu = index
    return 0


def _unmask(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    port = access.read_u32(hv, cpu, argument)
    if channels.find(hv, port) is None:
        return -EINVAL
    channels.unmask(hv, port)
    return 0


def _reset(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    error = _domain_error(hv, *access.fetch(hv, cpu, argument, _RESET))
    if error:
        return error
    for port, channel in enumerate(hv.domain.channels):
        if channel.state != ChannelState.CLOSED:
            channels.close(hv, port)
    # Back to the two-level interface, since FIFO's queues are gone with the channels.
    fifo.destroy(hv)
    return 0


def _reset_on(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """What Xen goes on with a long reset by: a guest cannot begin there."""
    # Only Xen goes on with a reset that it has begun (EVTCHNOP_reset_cont).
    return _domain_error(hv, *access.fetch(hv, cpu, argument, _RESET)) or -EBUSY


def _init_control(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    mfn, offset, index = access.fetch(hv, cpu, argument, _CONTROL)
    error = fifo.init_control(hv, mfn, offset, index)
    if not error:
        access.store(hv, cpu, argument, _LINK_BITS, fifo.LINK_BITS)
    return error


def _expand_array(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return fifo.expand_array(hv, access.read_u64(hv, cpu, argument))


def _set_priority(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    port, priority = access.fetch(hv, cpu, argument, _PRIORITY)
    queues = hv.domain.fifo
    if channels.find(hv, port) is None:
        return -EINVAL
    # Only the FIFO interface has priorities.
    if queues is None:
        return -ENOSYS
    if priority > fifo.LOWEST_PRIORITY:
        return -EINVAL
    queues.priorities[port] = priority
    return 0


_OPERATIONS: Final[dict[int, Callable[[Hypervisor, Vcpu, int], int]]] = {
    EvtchnOp.BIND_INTERDOMAIN: _bind_interdomain,
    EvtchnOp.BIND_VIRQ: _bind_virq,
    EvtchnOp.BIND_PIRQ: _bind_pirq,
    EvtchnOp.CLOSE: _close,
    EvtchnOp.SEND: _send,
    EvtchnOp.STATUS: _status,
    EvtchnOp.ALLOC_UNBOUND: _alloc_unbound,
    EvtchnOp.BIND_IPI: _bind_ipi,
    EvtchnOp.BIND_VCPU: _bind_vcpu,
    EvtchnOp.UNMASK: _unmask,
    EvtchnOp.RESET: _reset,
    EvtchnOp.RESET_CONT: _reset_on,
    EvtchnOp.INIT_CONTROL: _init_control,
    EvtchnOp.EXPAND_ARRAY: _expand_array,
    EvtchnOp.SET_PRIORITY: _set_priority,
}


_COMPAT: Final = frozenset(range(EvtchnOp.UNMASK + 1))
_EVTCHN_OP: Final = EVENT_CHANNEL["evtchn_op"]
_COMPAT_OP: Final = _EVTCHN_OP.whole("cmd")  # and the largest structure, whichever it is


def event_channel_op_compat(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The call of Xen 3.0.2 and before: the command comes in front of the structure."""
    (command,) = access.fetch(hv, cpu, argument, _COMPAT_OP)
    # Commands of Xen 3.0.2, of which those up to EVTCHNOP_unmask came with a structure.
    return (
        event_channel_op(hv, cpu, command, argument + _EVTCHN_OP.offset("u", hv.abi.bits))
        if command in _COMPAT
        else -ENOSYS
    )


def event_channel_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``event_channel_op(cmd, arg)``."""
    operation = _OPERATIONS.get(command)
    return operation(hv, cpu, argument) if operation else -ENOSYS
