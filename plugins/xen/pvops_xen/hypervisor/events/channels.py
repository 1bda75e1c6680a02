"""The channels of a domain: their states, who hears of them, and events on them by the interface in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import ENOSPC, Virq
from pvops_xen.hypervisor.events import fifo, twolevel
from pvops_xen.hypervisor.state import Channel, ChannelState

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor

PER_VCPU_VIRQS: Final = frozenset({Virq.TIMER, Virq.DEBUG, Virq.XENOPROF, Virq.XENPMU})
_BUCKET: Final = 64
LOOP: Final = "loop"


def is_pending(hv: Hypervisor, port: int) -> bool:
    """evtchn_is_pending(): the port's event has not been taken yet."""
    queues = hv.domain.fifo
    return twolevel.is_pending(hv, port) if queues is None else fifo.is_pending(hv, queues, port)


def set_pending(hv: Hypervisor, port: int) -> None:
    """evtchn_port_set_pending(): an event on a port."""
    queues = hv.domain.fifo
    if queues is None:
        twolevel.set_pending(hv, port)
    else:
        fifo.set_pending(hv, queues, port)


def unmask(hv: Hypervisor, port: int) -> None:
    """evtchn_port_unmask(): clear a port's mask, and tell of what is pending."""
    queues = hv.domain.fifo
    if queues is None:
        twolevel.unmask(hv, port)
    else:
        fifo.unmask(hv, queues, port)


def raise_virq(hv: Hypervisor, index: int, virq: int) -> None:
    """``send_guest_vcpu_virq``: nothing happens if it is not bound."""
    port = hv.domain.vcpus[index].virqs.get(virq)
    if port:
        set_pending(hv, port)


def find(hv: Hypervisor, port: int) -> Channel | None:
    """A channel that is there, free or not: they come 64 at a time, and the first is never used."""
    channels = hv.domain.channels
    return channels[port] if port < len(channels) else None


def free_port(hv: Hypervisor) -> int:
    """get_free_port(): one below what the toolstack and the interface in use allow; -ENOSPC if there is none."""
    channels, queues = hv.domain.channels, hv.domain.fifo
    for port in range(1, min(hv.domain.max_port + 1, hv.abi.channels if queues is None else fifo.CHANNELS)):
        if port == len(channels):
            channels += [Channel() for _ in range(_BUCKET)]
        # With FIFO a port that is still linked must not be used anew, or two users would share a word.
        if channels[port].state == ChannelState.CLOSED and not (queues and fifo.is_busy(hv, queues, port)):
            return port
    return -ENOSPC


def allocate(hv: Hypervisor, channel: Channel) -> int:
    """A free port for a channel; -ENOSPC if there is none."""
    port = free_port(hv)
    if port > 0:
        hv.domain.channels[port] = channel
    return port


def close(hv: Hypervisor, port: int) -> None:
    """evtchn_close(): the port is not pending any more, and a virtual interrupt can be bound anew."""
    channel = hv.domain.channels[port]
    if channel.state == ChannelState.VIRQ:
        for state in hv.domain.vcpus:
            # A virtual interrupt may be bound again as soon as its channel is free.
            if state.virqs.get(channel.detail) == port:
                del state.virqs[channel.detail]
    elif channel.sink == LOOP:
        other = hv.domain.channels[channel.detail]
        # The other end waits again, as before it was connected.
        other.state, other.detail, other.sink = ChannelState.UNBOUND, hv.domain.domid, ""
    hv.domain.channels[port] = Channel()
    queues = hv.domain.fifo
    if queues is None:
        twolevel.clear_pending(hv, port)
    else:
        fifo.clear_pending(hv, queues, port)


def connect(hv: Hypervisor, remote: int) -> int:
    """Connect a new port to one of the domain's own that waits for it; the new one, or a negative errno."""
    local = allocate(hv, Channel(ChannelState.INTERDOMAIN, 0, remote, LOOP))
    if local > 0:
        other = hv.domain.channels[remote]
        other.state, other.detail, other.sink = ChannelState.INTERDOMAIN, local, LOOP
        # Pending from the start: whoever sent before is not lost.
        set_pending(hv, local)  # whatever was sent before anybody listened
    return local


def notify(hv: Hypervisor, port: int) -> bool:
    """evtchn_send(): the event goes to the other end; False if the port has none."""
    channel = hv.domain.channels[port]
    if channel.state == ChannelState.IPI:
        # An IPI is told to its own vCPU; others are told to whoever holds the other end.
        set_pending(hv, port)
    elif channel.state == ChannelState.INTERDOMAIN:
        if channel.sink == LOOP:
            set_pending(hv, channel.detail)
        else:
            serve(hv, port)
    return channel.state in {ChannelState.IPI, ChannelState.INTERDOMAIN, ChannelState.UNBOUND}


# --- services outside the domain -------------------------------------------------------------------------------------


def open_to_host(hv: Hypervisor, sink: str) -> int:
    """A channel whose other end is a service in dom0 (console, xenstore)."""
    return allocate(hv, Channel(ChannelState.INTERDOMAIN, 0, 0, sink))


def serve(hv: Hypervisor, port: int) -> None:
    """Let the service at the other end look at its shared page, and tell the guest if that changed anything."""
    sink = hv.domain.channels[port].sink
    service = hv.console if sink == "console" else hv.store if sink == "xenstore" else None
    if service is not None and service.exchange(hv.memory):
        set_pending(hv, port)
