"""Two-level interface: bitmaps of pending and masked ports in shared_info, a selector of words in each vcpu_info.

Source: xen/common/event_2l.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen.hypervisor.events.upcalls import make_upcall_pending, wake_pollers

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor


def _bit(hv: Hypervisor, base: int, port: int) -> tuple[int, int]:
    """Machine address of the byte and mask of a port's bit in a bitmap of shared_info."""
    return hv.domain.shared_info + base + port // 8, 1 << port % 8


def _test_and_change(hv: Hypervisor, base: int, port: int, *, value: bool) -> bool:
    address, bit = _bit(hv, base, port)
    old = hv.memory.u8(address)
    hv.memory.set_u8(address, old | bit if value else old & ~bit)
    return bool(old & bit)


def is_pending(hv: Hypervisor, port: int) -> bool:
    """The port's pending bit."""
    address, bit = _bit(hv, hv.abi.evtchn_pending, port)
    return bool(hv.memory.u8(address) & bit)


def set_pending(hv: Hypervisor, port: int) -> None:
    """An event on a port: a new, unmasked one makes its vCPU's upcall pending."""
    # Already pending: the vCPU was told then, and is told once (``evtchn_2l_set_pending``).
    if _test_and_change(hv, hv.abi.evtchn_pending, port, value=True):
        return
    address, bit = _bit(hv, hv.abi.evtchn_mask, port)
    # Masked, it is told when the guest unmasks it.
    if not hv.memory.u8(address) & bit:
        _select(hv, port)
    wake_pollers(hv, port)


def clear_pending(hv: Hypervisor, port: int) -> None:
    """The port is free again."""
    _test_and_change(hv, hv.abi.evtchn_pending, port, value=False)


def unmask(hv: Hypervisor, port: int) -> None:
    """Clear the port's mask; what is pending is heard of now."""
    # Pending while it was masked: the guest hears of it now.
    if _test_and_change(hv, hv.abi.evtchn_mask, port, value=False) and is_pending(hv, port):
        _select(hv, port)


def _select(hv: Hypervisor, port: int) -> None:
    """Select the port's word; unless it was selected already, the upcall is pending."""
    index = hv.domain.channels[port].vcpu
    address, word = hv.domain.vcpus[index].info + hv.abi.pending_sel, hv.abi.word
    selector = int.from_bytes(hv.memory.read(address, word), "little")
    bit = 1 << port // hv.abi.bits
    # The word's bit in the selector is set, so the guest is on its way to it already.
    if not selector & bit:
        hv.memory.write(address, (selector | bit).to_bytes(word, "little"))
        make_upcall_pending(hv, index)
