"""Privileged instructions that Xen carries out for a guest's kernel (pv/emul-priv-op.c), by name and by opcode.

Everything else is #GP for the guest: hlt, invlpg, lgdt and their like have hypercalls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_core.machine.faults import GuestFault, general_protection
from pvops_xen.hypervisor import access, policy, tables
from pvops_xen.hypervisor.abi import PAGE_SHIFT, TRAP_GP_FAULT
from pvops_xen.hypervisor.bounce import in_guest_kernel
from pvops_xen.hypervisor.cpumodel import cpuid
from pvops_xen.hypervisor.mmu import new_guest_cr3
from pvops_xen.hypervisor.traps import inject

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_TS: Final = 1 << 3
_TSD: Final = 1 << 2
# CR4 bits that a PV guest sees and may set: VME PVI TSD DE (0-3), PAE, MCE (6), OSFXSR, OSXMMEXCPT.
_CR4_GUEST: Final = 0b1111 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10
FEP: Final = bytes.fromhex("0f0b78656e")  # ud2 and "xen": the forced emulation prefix
CPUID: Final = bytes.fromhex("0fa2")
ICEBP: Final = bytes.fromhex("f1")
_DEBUG: Final = 1
_MISC_FEATURES_ENABLES: Final = 0x140
_FS_BASE, _GS_BASE, _KERNEL_GS_BASE, _TSC = 0xC000_0100, 0xC000_0101, 0xC000_0102, 0x10

Answer = Callable[..., "int | None"]


def io_permitted(hv: Hypervisor, cpu: Vcpu) -> bool:
    """``iopl_ok``: the level set by physdev_op against the guest's mode."""
    ring = 1 if in_guest_kernel(hv, cpu) else 3
    return hv.state(cpu).iopl >= ring


def _cli_or_sti(hv: Hypervisor, cpu: Vcpu) -> int | None:
    """Nothing: real interrupts are Xen's. A guest without I/O privilege gets #GP as on hardware."""
    if not io_permitted(hv, cpu):
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
        root = state.guest_table
        return root << PAGE_SHIFT if hv.abi.bits == 64 else (root << 12 | root >> 20) & 0xFFFF_FFFF
    if number == 4:
        return state.cr4
    raise general_protection(f"no control register {number} for a guest")


def _mov_to_cr(hv: Hypervisor, cpu: Vcpu, number: int, value: int) -> int | None:
    state = hv.state(cpu)
    if number == 0:
        if (value ^ state.cr0) & ~_TS:
            hv.log("Attempt to change unmodifiable CR0 flags")
            raise general_protection("a guest may change no bit of CR0 but TS")
        tables.fpu_taskswitch(hv, cpu, value & _TS)
    elif number == 2:
        state.cr2 = value
    elif number == 3:
        mfn = value >> PAGE_SHIFT if hv.abi.bits == 64 else (value >> 12 | value << 20) & 0xFFFF_FFFF
        if new_guest_cr3(hv, cpu, mfn):
            raise general_protection(f"{value:#x} is no root page table")
    elif number == 4:
        state.cr4 = value & _CR4_GUEST | 1 << 5
        cpu.cr4 = cpu.cr4 & ~_TSD | value & _TSD
    else:
        raise general_protection(f"no control register {number} for a guest")
    return None


def _mov_from_dr(hv: Hypervisor, cpu: Vcpu, number: int) -> int | None:
    value = tables.get_debugreg(hv, cpu, number)
    if value < 0:
        raise general_protection(f"no debug register {number}")
    return value


def _mov_to_dr(hv: Hypervisor, cpu: Vcpu, number: int, value: int) -> int | None:
    if tables.set_debugreg(hv, cpu, number, value) < 0:
        raise general_protection(f"debug register {number} does not take {value:#x}")
    return None


def _rdmsr(hv: Hypervisor, cpu: Vcpu, index: int) -> int | None:
    if hv.abi.bits == 64:
        if index in {_FS_BASE, _GS_BASE}:
            return cpu.msr(index)
        if index == _KERNEL_GS_BASE:
            return hv.state(cpu).gs_base_user
    if index == _TSC:
        return hv.machine.clock.ns
    if index == _MISC_FEATURES_ENABLES:
        return int(hv.state(cpu).cpuid_faulting)
    value = policy.read_msr(index)
    if value is None:
        raise general_protection(f"rdmsr {index:#x}")
    return value


def _wrmsr(hv: Hypervisor, cpu: Vcpu, index: int, value: int) -> int | None:
    bases = {_FS_BASE: 0, _KERNEL_GS_BASE: 1, _GS_BASE: 2}
    if hv.abi.bits == 64 and index in bases:
        if tables.set_segment_base(hv, cpu, bases[index], value):
            raise general_protection(f"{value:#x} is not canonical")
        return None
    if index == _MISC_FEATURES_ENABLES and value in {0, 1}:
        hv.state(cpu).cpuid_faulting = bool(value)
        return None
    if not policy.msr_write_ignored(index):
        hv.log(f"Domain attempted WRMSR {index:08x} to {value:016x}")
        raise general_protection(f"wrmsr {index:#x}")
    return None


def _rdtsc(hv: Hypervisor, cpu: Vcpu) -> int | None:
    del cpu
    return hv.machine.clock.ns


def _in(hv: Hypervisor, cpu: Vcpu, port: int, size: int) -> int | None:
    if not io_permitted(hv, cpu):
        raise general_protection(f"in from port {port:#x}")
    if hv.abi.bits == 64:  # its level changes only where Xen moves it, so it may as long as it is not moved
        cpu.float_ports(lambda count: hv.stats.traps.update(emulated_in=count))
    return (1 << 8 * size) - 1  # there is nothing behind any port


def _out(hv: Hypervisor, cpu: Vcpu, port: int, value: int, size: int) -> int | None:
    del value, size
    if not io_permitted(hv, cpu):
        raise general_protection(f"out to port {port:#x}")
    return None


_KERNEL_ONLY: Final[dict[str, Answer]] = {
    "cli": _cli_or_sti,
    "sti": _cli_or_sti,
    "clts": _clts,
    "wbinvd": _wbinvd,
    "mov_from_cr": _mov_from_cr,
    "mov_to_cr": _mov_to_cr,
    "mov_from_dr": _mov_from_dr,
    "mov_to_dr": _mov_to_dr,
    "rdmsr": _rdmsr,
    "wrmsr": _wrmsr,
    "rdtsc": _rdtsc,  # it traps only where the guest has set CR4.TSD, and then is its kernel's
}
_ANY_MODE: Final[dict[str, Answer]] = {"in_": _in, "out": _out}


def privileged(hv: Hypervisor, cpu: Vcpu, name: str, *operands: int) -> int | None:
    """Do an instruction for the guest, or raise the #GP that it gets."""
    answer = _ANY_MODE.get(name)
    if answer is None and in_guest_kernel(hv, cpu):
        answer = _KERNEL_ONLY.get(name)
    if answer is None:
        raise general_protection(f"{name} is not emulated")
    hv.stats.traps[f"emulated_{name.rstrip('_')}"] += 1
    return answer(hv, cpu, *operands)


# --- by opcode -------------------------------------------------------------------------------------------------------

_REGISTERS: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
_SIMPLE: Final = {b"\xfa": "cli", b"\xfb": "sti", b"\x0f\x06": "clts", b"\x0f\x09": "wbinvd"}
_MOVES: Final = {0x20: "mov_from_cr", 0x21: "mov_from_dr", 0x22: "mov_to_cr", 0x23: "mov_to_dr"}


def emulate_at_rip(hv: Hypervisor, cpu: Vcpu) -> bool:
    """A #GP arrived: carry out the instruction at RIP if it is one that Xen does. False: the guest gets the #GP."""
    rip = cpu.rip
    code = fetch(hv, cpu, rip)
    rex = 0
    start = 0
    if hv.abi.bits == 64 and code and code[0] & 0xF0 == 0x40:
        rex, start = code[0], 1
    try:
        length = _one(hv, cpu, code[start:], rex)
    except GuestFault:
        return False
    if not length:
        return False
    cpu.rip = rip + start + length
    return True


def fetch(hv: Hypervisor, cpu: Vcpu, rip: int) -> bytes:
    """Up to 15 bytes of code; fewer at the end of mapped memory."""
    for size in (15, 0x1000 - rip % 0x1000):
        try:
            return access.read(hv, cpu, rip, size)[:15]
        except (access.BadHandleError, GuestFault):
            continue
    return b""


def _one(hv: Hypervisor, cpu: Vcpu, code: bytes, rex: int) -> int:
    """Carry out one instruction and give its length; 0 if it is none of those emulated."""
    for opcode, name in _SIMPLE.items():
        if code.startswith(opcode):
            privileged(hv, cpu, name)
            return len(opcode)
    if len(code) < 2 or code[0] != 0x0F:
        return 0
    second = code[1]
    if second in _MOVES and len(code) > 2:
        number = code[2] >> 3 & 7 | (rex & 4) << 1
        register = _REGISTERS[code[2] & 7 | (rex & 1) << 3]
        if second & 2:
            privileged(hv, cpu, _MOVES[second], number, cpu.get(register))
        else:
            cpu.set(register, privileged(hv, cpu, _MOVES[second], number) or 0)
        return 3
    if second == 0x30:
        value = cpu.get("rax") & 0xFFFF_FFFF | (cpu.get("rdx") & 0xFFFF_FFFF) << 32
        privileged(hv, cpu, "wrmsr", cpu.get("rcx") & 0xFFFF_FFFF, value)
        return 2
    if second in {0x31, 0x32}:
        operands = (cpu.get("rcx") & 0xFFFF_FFFF,) if second == 0x32 else ()
        value = privileged(hv, cpu, "rdmsr" if operands else "rdtsc", *operands) or 0
        cpu.set("rax", value & 0xFFFF_FFFF)
        cpu.set("rdx", value >> 32)
        return 2
    return 0


def answer_undefined(hv: Hypervisor, cpu: Vcpu) -> bool:
    """#UD: cpuid behind the prefix that asks Xen to emulate, or icebp, which the engine does not know; else False."""
    code = fetch(hv, cpu, cpu.rip)
    if code.startswith(ICEBP):
        cpu.rip += 1
        inject(hv, cpu, _DEBUG, None)
        return True
    if code[:7] != FEP + CPUID:
        return False
    if faults_on_cpuid(hv, cpu):
        cpu.rip += len(FEP)
        inject(hv, cpu, TRAP_GP_FAULT, 0)
        return True
    answer = cpuid(hv, cpu.get("rax") & 0xFFFF_FFFF, cpu.get("rcx") & 0xFFFF_FFFF)
    for register, value in zip(("rax", "rbx", "rcx", "rdx"), answer, strict=True):
        cpu.set(register, value)
    cpu.rip += 7
    return True


def faults_on_cpuid(hv: Hypervisor, cpu: Vcpu) -> bool:
    """The guest has asked that cpuid of its processes be its kernel's to answer (MSR_MISC_FEATURES_ENABLES)."""
    return hv.state(cpu).cpuid_faulting and not in_guest_kernel(hv, cpu)
