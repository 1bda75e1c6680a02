"""Privileged instructions that Xen carries out for a guest's kernel, by name (pv/emul-priv-op.c).

Everything else is #GP for the guest: hlt, invlpg, lgdt and their like have hypercalls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import general_protection, undefined_instruction
from pvops_core.x86 import CR0_TS
from pvops_xen.hypervisor.abi import ENODEV, PAGE_SHIFT
from pvops_xen.hypervisor.memory.mmuext import new_guest_cr3
from pvops_xen.hypervisor.processor import debugreg, ports, tables
from pvops_xen.hypervisor.processor.bounce import in_guest_kernel
from pvops_xen.hypervisor.processor.msrs import read_msr, write_msr

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor


Answer = Callable[..., "int | None"]


def _cli_or_sti(hv: Hypervisor, cpu: Vcpu) -> int | None:
    """Nothing: real interrupts are Xen's. A guest without I/O privilege gets #GP as on hardware."""
    if not ports.iopl_ok(hv, cpu):
        raise general_protection("cli or sti without I/O privilege")
    return None


def _clts(hv: Hypervisor, cpu: Vcpu) -> int | None:
    tables.fpu_taskswitch(hv, cpu, 0)
    return None


def _wbinvd(hv: Hypervisor, cpu: Vcpu) -> int | None:
    """Ignored for a domain without devices."""
    del hv, cpu
    return None


def _mov_from_cr(hv: Hypervisor, cpu: Vcpu, number: int) -> int | None:
    state = hv.state(cpu)
    if number == 0:
        return state.cr0
    if number == 2:
        return state.cr2
    if number == 3:
        root = state.guest_table  # xen_pfn_to_cr3 (xen-x86_32.h): PAE roots above 4 GiB, in 32 bits by a rotation
        return root << PAGE_SHIFT if hv.abi.bits == 64 else (root << 12 | root >> 20) & 0xFFFF_FFFF
    if number == 4:
        return state.cr4
    raise general_protection(f"no control register {number} for a guest")


def _mov_to_cr(hv: Hypervisor, cpu: Vcpu, number: int, value: int) -> int | None:
    state = hv.state(cpu)
    if number == 0:
        # TS alone is the guest's; every other bit would be Xen's (``write_cr``).
        if (value ^ state.cr0) & ~CR0_TS:
            hv.log("Attempt to change unmodifiable CR0 flags")
            raise general_protection("a guest may change no bit of CR0 but TS")
        tables.fpu_taskswitch(hv, cpu, value & CR0_TS)
    elif number == 2:
        state.cr2 = value
    elif number == 3:
        # And back: xen_cr3_to_pfn
        mfn = value >> PAGE_SHIFT if hv.abi.bits == 64 else (value >> 12 | value << 20) & 0xFFFF_FFFF
        # As by the hypercall: the table is validated first.
        if new_guest_cr3(hv, cpu, mfn):
            raise general_protection(f"{value:#x} is no root page table")
    elif number == 4:
        tables.load_cr4(hv, cpu, value)
    else:
        raise general_protection(f"no control register {number} for a guest")
    return None


def _mov_from_dr(hv: Hypervisor, cpu: Vcpu, number: int) -> int | None:
    value = debugreg.get_debugreg(hv, cpu, number)
    if value < 0:
        raise undefined_instruction(f"no debug register {number}")
    return value


def _mov_to_dr(hv: Hypervisor, cpu: Vcpu, number: int, value: int) -> int | None:
    error = debugreg.set_debugreg(hv, cpu, number, value)
    if error == -ENODEV:
        raise undefined_instruction(f"no debug register {number}")
    if error:
        raise general_protection(f"debug register {number} does not take {value:#x}")
    return None


def _rdtsc(hv: Hypervisor, cpu: Vcpu) -> int | None:
    del cpu
    return hv.machine.clock.ns


def _in(hv: Hypervisor, cpu: Vcpu, port: int, size: int) -> int | None:
    # Looked at before the port is read: a read may have consequences.
    ports.check_allowed(hv, cpu, port, size)
    state = hv.state(cpu)
    # A loop that polls a port: until something else moves it, it gets the same answer.
    if hv.abi.bits == 64 and state.polled_port == port and ports.iopl_ok(hv, cpu) and ports.is_plain(port, size):
        # A loop. Its level changes only where Xen moves it, so it need not be asked as long as it is not moved.
        cpu.stub_ports(lambda count: hv.stats.traps.update(emulated_in=count))
    state.polled_port = port
    return ports.read(hv, port, size)


def _out(hv: Hypervisor, cpu: Vcpu, port: int, value: int, size: int) -> int | None:
    ports.check_allowed(hv, cpu, port, size)
    ports.write(hv, port, size, value)
    # Another port has been written, so the loop is over.
    cpu.unstub_ports()
    hv.state(cpu).polled_port = -1
    return None


_KERNEL_ONLY: Final[dict[str, Answer]] = {
    "clts": _clts,
    "wbinvd": _wbinvd,
    "mov_from_cr": _mov_from_cr,
    "mov_to_cr": _mov_to_cr,
    "mov_from_dr": _mov_from_dr,
    "mov_to_dr": _mov_to_dr,
    "rdmsr": read_msr,
    "wrmsr": write_msr,
    "rdtsc": _rdtsc,  # it traps only where the guest has set CR4.TSD, and then is its kernel's
}
_ANY_MODE: Final[dict[str, Answer]] = {"cli": _cli_or_sti, "sti": _cli_or_sti, "in_": _in, "out": _out}


def privileged(hv: Hypervisor, cpu: Vcpu, name: str, *operands: int) -> int | None:
    """Do an instruction for the guest, or raise the #GP that it gets."""
    answer = _ANY_MODE.get(name)
    if answer is None and in_guest_kernel(hv, cpu):
        answer = _KERNEL_ONLY.get(name)
    if answer is None:
        raise general_protection(f"{name} is not emulated")
    hv.stats.traps[f"emulated_{name.rstrip('_')}"] += 1
    return answer(hv, cpu, *operands)
