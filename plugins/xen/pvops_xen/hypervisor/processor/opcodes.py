"""Which instruction a guest met a fault at, where Xen carries it out (pv/emul-priv-op.c, pv/emul-inv-op.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.cpu.faults import GuestFault, undefined_instruction
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import TRAP_GP_FAULT
from pvops_xen.hypervisor.processor.bounce import in_guest_kernel
from pvops_xen.hypervisor.processor.bounce64 import RF, TF
from pvops_xen.hypervisor.processor.cpuid import cpuid
from pvops_xen.hypervisor.processor.debugreg import STEP, raise_debug
from pvops_xen.hypervisor.processor.emulate import privileged
from pvops_xen.hypervisor.processor.traps import inject, inject_fault

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

FEP: Final = bytes.fromhex("0f0b78656e")  # ud2 and "xen": the forced emulation prefix
CPUID: Final = bytes.fromhex("0fa2")
_PREFIXES: Final = frozenset(bytes.fromhex("26 2e 36 3e 64 65 66 67 f2 f3"))
_LONGEST: Final = 15
_TWO_BYTES: Final = 0x0F
_REGISTERS: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
_ONE_BYTE: Final = {0xFA: "cli", 0xFB: "sti"}
_PLAIN: Final = {0x06: "clts", 0x09: "wbinvd"}
_MOVES: Final = {0x20: "mov_from_cr", 0x21: "mov_from_dr", 0x22: "mov_to_cr", 0x23: "mov_to_dr"}
_RDTSCP: Final = bytes.fromhex("0f01f9")
_WRMSR, _RDTSC, _RDMSR = 0x30, 0x31, 0x32


@attrs.frozen
class TrappedInstruction:
    """One of those that Xen knows: its bytes after the prefixes, the REX prefix (0: none) and where it ends."""

    code: bytes
    rex: int
    end: int


def emulate_at_rip(hv: Hypervisor, cpu: Vcpu) -> bool:
    """A #GP arrived: carry out the instruction at RIP, or give the guest what Xen's refusal is.

    False if it is none of those that Xen knows: the guest gets the #GP.
    """
    found = _decode(hv, cpu)
    if found is None:
        return False
    try:
        _carry_out(hv, cpu, found)
    except GuestFault as fault:
        inject_fault(hv, cpu, fault)
    else:
        _done(hv, cpu, found.end)
    return True


def fetch(hv: Hypervisor, cpu: Vcpu, rip: int) -> bytes:
    """Up to 15 bytes of code; fewer at the end of mapped memory."""
    # Fifteen bytes may reach beyond the last page that is mapped; what is there will do.
    for size in (_LONGEST, 0x1000 - rip % 0x1000):
        try:
            return access.read(hv, cpu, rip, size)[:_LONGEST]
        except (access.BadHandleError, GuestFault):
            continue
    return b""


def _decode(hv: Hypervisor, cpu: Vcpu) -> TrappedInstruction | None:
    rip = cpu.rip
    code = fetch(hv, cpu, rip)
    at = rex = 0
    while at < len(code) and code[at] in _PREFIXES:
        at += 1
    # REX is the last prefix, in 64-bit code alone (SDM volume 2, 2.2.1).
    if at < len(code) and code[at] & 0xF0 == 0x40 and hv.abi.bits == 64 and cpu.in_64_bit_code:
        rex, at = code[at], at + 1
    code = code[at:]
    if not code:
        return None
    if code[0] in _ONE_BYTE:
        length = 1
    elif code[0] != _TWO_BYTES or len(code) < 2:
        return None
    elif code[1] in _PLAIN or code[1] in {_WRMSR, _RDTSC, _RDMSR}:
        length = 2
    elif (code[1] in _MOVES and len(code) > 2) or code.startswith(_RDTSCP):
        length = 3
    else:
        return None
    return TrappedInstruction(code[:length], rex, rip + at + length)


def _carry_out(hv: Hypervisor, cpu: Vcpu, found: TrappedInstruction) -> None:
    """Do it.

    Raises:
        GuestFault: what the guest gets in its place.
    """
    code, rex = found.code, found.rex
    if code == _RDTSCP:
        raise undefined_instruction("rdtscp is hidden from PV guests, and traps for its kernel's CR4.TSD")
    if code[0] in _ONE_BYTE:
        privileged(hv, cpu, _ONE_BYTE[code[0]])
    elif code[1] in _PLAIN:
        privileged(hv, cpu, _PLAIN[code[1]])
    elif code[1] in _MOVES:
        # ModRM, with REX.R and REX.B for the registers from 8 on
        name, number = _MOVES[code[1]], code[2] >> 3 & 7 | (rex & 4) << 1
        register = _REGISTERS[code[2] & 7 | (rex & 1) << 3]
        if code[1] & 2:  # 22 and 23 move into the control or debug register
            privileged(hv, cpu, name, number, cpu.get(register))
        else:
            cpu.set(register, privileged(hv, cpu, name, number) or 0)
    elif code[1] == _WRMSR:
        value = cpu.get("rax") & 0xFFFF_FFFF | (cpu.get("rdx") & 0xFFFF_FFFF) << 32
        privileged(hv, cpu, "wrmsr", cpu.get("rcx") & 0xFFFF_FFFF, value)
    else:
        operands = (cpu.get("rcx") & 0xFFFF_FFFF,) if code[1] == _RDMSR else ()
        value = privileged(hv, cpu, "rdmsr" if operands else "rdtsc", *operands) or 0
        cpu.set("rax", value & 0xFFFF_FFFF)
        cpu.set("rdx", value >> 32)


def _done(hv: Hypervisor, cpu: Vcpu, rip: int) -> None:
    """``pv_emul_instruction_done``: on behind it; if the guest makes single steps, this was one."""
    flags = cpu.rflags
    cpu.rip = rip
    # RF is cleared by every instruction that completes (SDM volume 3, 17.3.1.1).
    if flags & RF:
        cpu.rflags = flags & ~RF
    if flags & TF:
        raise_debug(hv, cpu, STEP)


def answer_undefined(hv: Hypervisor, cpu: Vcpu) -> bool:
    """#UD: cpuid behind the prefix that asks Xen to emulate; else False."""
    code = fetch(hv, cpu, cpu.rip)
    if code[: len(FEP) + len(CPUID)] != FEP + CPUID:
        return False
    if faults_on_cpuid(hv, cpu):
        # As on the processor: the prefix was executed, and cpuid faults behind it.
        cpu.rip += len(FEP)
        inject(hv, cpu, TRAP_GP_FAULT, 0)
        return True
    for register, value in zip(("rax", "rbx", "rcx", "rdx"), cpuid(hv, cpu.get("rax"), cpu.get("rcx")), strict=True):
        cpu.set(register, value)
    _done(hv, cpu, cpu.rip + len(FEP) + len(CPUID))
    return True


def faults_on_cpuid(hv: Hypervisor, cpu: Vcpu) -> bool:
    """The guest has asked that cpuid of its processes be its kernel's to answer (MSR_MISC_FEATURES_ENABLES)."""
    return hv.state(cpu).cpuid_faulting and not in_guest_kernel(hv, cpu)
