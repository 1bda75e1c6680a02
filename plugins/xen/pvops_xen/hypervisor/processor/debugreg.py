"""Debug registers of a PV guest: what Xen checks and keeps (pv/misc-hypercalls.c, ``set_debugreg``; x86_emulate.c).

Breakpoints on ports are Xen's to find, since it emulates every port access; here the processor tells them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.x86 import DR6_RESET, DR7_RESET
from pvops_xen.hypervisor.abi import EINVAL, ENODEV, EPERM
from pvops_xen.hypervisor.access import native_addr_ok
from pvops_xen.hypervisor.processor.traps import inject

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import XenVcpuState

DEBUG: Final = 1
STEP: Final = 1 << 14  # of DR6, as all DR6_
_DR6_ZERO: Final = 1 << 12  # these two always read as 0: DR_STATUS_RESERVED_ZERO, DR_CONTROL_RESERVED_ZERO
_DR7_ZERO: Final = 0xD800
_GENERAL_DETECT: Final = 1 << 13
_ACTIVE: Final = 0xFF  # the enable bits of all four, two each
_PORT: Final = 2
_DE: Final = 1 << 3  # of CR4


def _aliased(state: XenVcpuState, number: int) -> int | None:
    """DR4 and DR5 are DR6 and DR7 without CR4.DE, and nothing with it."""
    if number in {4, 5}:
        return None if state.cr4 & _DE else number + 2
    return number if number in range(8) else None


def set_debugreg(hv: Hypervisor, cpu: Vcpu, number: int, value: int) -> int:
    """``set_debugreg(reg, value)``: 0; -ENODEV, -EINVAL for bits that must be zero, -EPERM for what Xen forbids."""
    state = hv.state(cpu)
    register = _aliased(state, number)
    if register is None:
        return -ENODEV
    if register < 4:
        # ``native_addr_ok``: a breakpoint on Xen's own memory would trap in Xen.
        if not native_addr_ok(hv.abi, value):
            return -EPERM
        state.debugreg[register] = value
        cpu.debug.write(register, value)
        return 0
    # The upper half must be zero (``set_debugreg``).
    if value >> 32:
        return -EINVAL
    if register == 6:
        state.debugreg[6] = value & ~_DR6_ZERO | DR6_RESET
        cpu.debug.write(6, state.debugreg[6])
        return 0
    # Reserved bits of DR7 as the processor has them, whatever the guest writes.
    error = _set_control(state, value & ~_DR7_ZERO | DR7_RESET)
    if not error:
        cpu.debug.write(7, state.debugreg[7] | state.dr7_emul)
    return error


def _set_control(state: XenVcpuState, value: int) -> int:
    """DR7: breakpoints on ports are kept apart, and need CR4.DE as soon as any breakpoint is enabled."""
    # DR7.GD would trap Xen itself at its next move of a debug register.
    if value & _GENERAL_DETECT:
        return -EPERM
    on_ports = 0
    if value & _ACTIVE:
        for index in range(4):
            if value >> 16 + 4 * index & 3 == _PORT:
                # Without CR4.DE the same two bits mean reserved, and nothing is watched.
                if not state.cr4 & _DE:
                    return -EPERM
                on_ports |= value & 3 << 2 * index
    state.dr7_emul, state.debugreg[7] = on_ports, value & ~on_ports
    return 0


def get_debugreg(hv: Hypervisor, cpu: Vcpu, number: int) -> int:
    """``get_debugreg(reg)``: the value, or -ENODEV."""
    state = hv.state(cpu)
    register = _aliased(state, number)
    if register is None:
        return -ENODEV
    # Reserved bits read as they are kept; breakpoints on ports read back although they stand in ``dr7_emul``.
    return state.debugreg[register] | (state.dr7_emul if register == 7 else 0)


def note_debug(hv: Hypervisor, cpu: Vcpu) -> None:
    """``do_debug``: the guest's DR6 gains what the processor's says, which is as after a reset then."""
    state, found = hv.state(cpu), cpu.debug.read(6)
    # Bits that are 0 after a reset tell by going to 1, the others by going to 0: so either kind is gathered.
    state.debugreg[6] = (state.debugreg[6] | found & ~DR6_RESET) & (found | ~DR6_RESET) & 0xFFFF_FFFF
    # As after a reset: what the guest is told stands in its own DR6, and the next hit must show by itself.
    cpu.debug.write(6, DR6_RESET)


def forget_hits(cpu: Vcpu) -> None:
    """Xen is entered: what a load of SS put off now comes in Xen's own code, which ignores it (``do_debug``)."""
    if cpu.debug.watching:
        cpu.debug.faulted()


def raise_debug(hv: Hypervisor, cpu: Vcpu, status: int) -> None:
    """#DB at RIP, with these bits in the guest's DR6."""
    hv.state(cpu).debugreg[6] |= status | DR6_RESET
    inject(hv, cpu, DEBUG, None)
