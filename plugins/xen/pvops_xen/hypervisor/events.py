"""Event channels, two-level interface (xen/common/event_channel.c, event_2l.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    DOMID_SELF,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOSPC,
    ENOSYS,
    EPERM,
    ESRCH,
    NR_VIRQS,
    EvtchnOp,
    Virq,
)
from pvops_xen.hypervisor.layout import EVTCHN_PENDING
from pvops_xen.hypervisor.state import Channel, ChannelState

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_PER_VCPU_VIRQS: Final = frozenset({Virq.TIMER, Virq.DEBUG, Virq.XENOPROF, Virq.XENPMU})


# --- pending bits ----------------------------------------------------------------------------------------------------


def _bit(hv: Hypervisor, base: int, port: int) -> tuple[int, int]:
    """Machine address of the byte and mask of a port's bit in a bitmap of shared_info."""
    return hv.domain.shared_info + base + port // 8, 1 << port % 8


def is_pending(hv: Hypervisor, port: int) -> bool:
    """The port's pending bit."""
    address, bit = _bit(hv, EVTCHN_PENDING, port)
    return bool(hv.memory.u8(address) & bit)


def _is_masked(hv: Hypervisor, port: int) -> bool:
    address, bit = _bit(hv, hv.abi.evtchn_mask, port)
    return bool(hv.memory.u8(address) & bit)


def set_pending(hv: Hypervisor, port: int) -> None:
    """An event on a port: a new, unmasked one makes its vCPU's upcall pending and wakes it."""
    address, bit = _bit(hv, EVTCHN_PENDING, port)
    old = hv.memory.u8(address)
    hv.memory.set_u8(address, old | bit)
    if old & bit:
        return
    index = hv.domain.channels[port].vcpu
    if not _is_masked(hv, port):
        mark_upcall(hv, index, port)
    _wake_pollers(hv, port)


def mark_upcall(hv: Hypervisor, index: int, port: int) -> None:
    """Select the port's word in the vCPU's selector and make its upcall pending."""
    info, word = hv.domain.vcpus[index].info, hv.abi.word
    selector_address = info + hv.abi.pending_sel
    selector = int.from_bytes(hv.memory.read(selector_address, word), "little") | 1 << port // hv.abi.bits
    hv.memory.write(selector_address, (selector & hv.abi.mask).to_bytes(word, "little"))
    make_upcall_pending(hv, index)


def make_upcall_pending(hv: Hypervisor, index: int) -> None:
    """Set evtchn_upcall_pending; a vCPU that sleeps with upcalls unmasked wakes."""
    state = hv.domain.vcpus[index]
    hv.memory.set_u8(state.info, 1)
    if not hv.memory.u8(state.info + 1):
        hv.machine.vcpus[index].wake()


def _wake_pollers(hv: Hypervisor, port: int) -> None:
    for state in hv.domain.vcpus:
        if state.poll_ports is not None and port in state.poll_ports:
            state.poll_ports = state.poll_until = None
            hv.machine.vcpus[state.index].wake()


def upcall_due(hv: Hypervisor, index: int) -> bool:
    """Pending and not masked: the guest must be entered at its event callback."""
    info = hv.domain.vcpus[index].info
    return bool(hv.memory.u8(info)) and not hv.memory.u8(info + 1)


def raise_virq(hv: Hypervisor, index: int, virq: int) -> None:
    """``send_guest_vcpu_virq``: nothing happens if it is not bound."""
    port = hv.domain.vcpus[index].virqs.get(virq)
    if port:
        set_pending(hv, port)


# --- channels --------------------------------------------------------------------------------------------------------


def _allocate(hv: Hypervisor, channel: Channel) -> int:
    """A free port for a channel; -ENOSPC if there is none."""
    channels = hv.domain.channels
    for port in range(1, len(channels)):
        if channels[port].state == ChannelState.CLOSED:
            channels[port] = channel
            return port
    if len(channels) >= hv.abi.channels:
        return -ENOSPC
    channels.append(channel)
    return len(channels) - 1


def open_to_host(hv: Hypervisor, sink: str) -> int:
    """A channel whose other end is a service outside the guest (console, xenstore)."""
    return _allocate(hv, Channel(ChannelState.INTERDOMAIN, 0, 0, sink))


def _valid(hv: Hypervisor, port: int) -> bool:
    return 0 < port < len(hv.domain.channels)


def _bind_virq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    virq, index = struct.unpack("<II", access.read(hv, cpu, argument, 8))
    if virq >= NR_VIRQS or (virq not in _PER_VCPU_VIRQS and index):
        return -EINVAL
    if index >= len(hv.domain.vcpus):
        return -ENOENT
    bound = hv.domain.vcpus[index].virqs
    if virq in bound:
        return -EEXIST
    port = _allocate(hv, Channel(ChannelState.VIRQ, index, virq))
    if port < 0:
        return port
    bound[virq] = port
    access.write_u32(hv, cpu, argument + 8, port)
    return 0


def _bind_ipi(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    index = access.read_u32(hv, cpu, argument)
    if index >= len(hv.domain.vcpus):
        return -ENOENT
    port = _allocate(hv, Channel(ChannelState.IPI, index))
    if port < 0:
        return port
    access.write_u32(hv, cpu, argument + 4, port)
    return 0


def _bind_pirq(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    access.read(hv, cpu, argument, 12)
    return -EPERM  # an unprivileged domain owns no interrupt lines


def _bind_interdomain(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    remote, port = struct.unpack("<H2xI", access.read(hv, cpu, argument, 8))
    if remote not in {DOMID_SELF, hv.domain.domid}:
        return -ESRCH
    channels = hv.domain.channels
    if not _valid(hv, port) or channels[port].state != ChannelState.UNBOUND:
        return -EINVAL
    local = _allocate(hv, Channel(ChannelState.INTERDOMAIN, cpu.index, port, "loop"))
    if local < 0:
        return local
    channels[port] = Channel(ChannelState.INTERDOMAIN, channels[port].vcpu, local, "loop")
    access.write_u32(hv, cpu, argument + 8, local)
    set_pending(hv, local)
    return 0


def _alloc_unbound(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    dom, remote = struct.unpack("<HH", access.read(hv, cpu, argument, 4))
    if dom not in {DOMID_SELF, hv.domain.domid}:
        return -ESRCH
    port = _allocate(hv, Channel(ChannelState.UNBOUND, 0, remote))
    if port < 0:
        return port
    access.write_u32(hv, cpu, argument + 4, port)
    return 0


def _close(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    port = access.read_u32(hv, cpu, argument)
    channel = hv.domain.channels[port] if _valid(hv, port) else Channel()
    if channel.state == ChannelState.CLOSED:
        return -EINVAL
    close_port(hv, port)
    return 0


def close_port(hv: Hypervisor, port: int) -> None:
    """Free a port: its bits are cleared and a virtual interrupt can be bound anew."""
    channel = hv.domain.channels[port]
    if channel.state == ChannelState.VIRQ:
        del hv.domain.vcpus[channel.vcpu].virqs[channel.detail]
    elif channel.sink == "loop":
        hv.domain.channels[channel.detail] = Channel(ChannelState.UNBOUND, 0, hv.domain.domid)
    hv.domain.channels[port] = Channel()
    for base in (EVTCHN_PENDING, hv.abi.evtchn_mask):
        address, bit = _bit(hv, base, port)
        hv.memory.set_u8(address, hv.memory.u8(address) & ~bit)


def serve(hv: Hypervisor, port: int) -> None:
    """Let the service at the other end look at its shared page, and tell the guest if that changed anything."""
    service = next((each for each in (hv.console, hv.store) if each.port == port), None)
    if service is not None and service.exchange(hv.memory):
        set_pending(hv, port)


def _send(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return send(hv, access.read_u32(hv, cpu, argument))


def send(hv: Hypervisor, port: int) -> int:
    """EVTCHNOP_send: notify the other end."""
    channel = hv.domain.channels[port] if _valid(hv, port) else Channel()
    if channel.state == ChannelState.IPI:
        set_pending(hv, port)
    elif channel.state == ChannelState.INTERDOMAIN:
        if channel.sink == "loop":
            set_pending(hv, channel.detail)
        else:
            serve(hv, port)
    elif channel.state != ChannelState.UNBOUND:
        return -EINVAL
    return 0


def _status(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    dom, port = struct.unpack("<H2xI", access.read(hv, cpu, argument, 8))
    if dom not in {DOMID_SELF, hv.domain.domid}:
        return -ESRCH
    if not _valid(hv, port):
        return -EINVAL
    channel = hv.domain.channels[port]
    answer = struct.pack("<II", channel.state, channel.vcpu)
    if channel.state == ChannelState.VIRQ:
        answer += struct.pack("<I", channel.detail)
    elif channel.state == ChannelState.UNBOUND:
        answer += struct.pack("<H", channel.detail & 0xFFFF)
    elif channel.state == ChannelState.INTERDOMAIN:
        loop = channel.sink == "loop"
        answer += struct.pack("<H2xI", hv.domain.domid if loop else 0, channel.detail)
    access.write(hv, cpu, argument + 8, answer)
    return 0


def _bind_vcpu(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    port, index = struct.unpack("<II", access.read(hv, cpu, argument, 8))
    if index >= len(hv.domain.vcpus):
        return -ENOENT
    channel = hv.domain.channels[port] if _valid(hv, port) else Channel()
    if channel.state == ChannelState.VIRQ and channel.detail in _PER_VCPU_VIRQS:
        return -EINVAL
    if channel.state not in {ChannelState.VIRQ, ChannelState.UNBOUND, ChannelState.INTERDOMAIN}:
        return -EINVAL
    channel.vcpu = index
    return 0


def _unmask(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    port = access.read_u32(hv, cpu, argument)
    if not _valid(hv, port):
        return -EINVAL
    address, bit = _bit(hv, hv.abi.evtchn_mask, port)
    masked = hv.memory.u8(address) & bit
    hv.memory.set_u8(address, hv.memory.u8(address) & ~bit)
    if masked and is_pending(hv, port):
        mark_upcall(hv, hv.domain.channels[port].vcpu, port)
    return 0


def _reset(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    dom = int.from_bytes(access.read(hv, cpu, argument, 2), "little")
    if dom not in {DOMID_SELF, hv.domain.domid}:
        return -ESRCH
    for port in range(1, len(hv.domain.channels)):
        if hv.domain.channels[port].state != ChannelState.CLOSED:
            close_port(hv, port)
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
}


def event_channel_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``event_channel_op(cmd, arg)``. The FIFO interface (init_control and what follows) is not there: -ENOSYS."""
    operation = _OPERATIONS.get(command & 0xFFFF_FFFF)
    return operation(hv, cpu, argument) if operation else -ENOSYS
