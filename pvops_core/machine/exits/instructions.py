"""What is done where the engine leaves at an instruction instead of executing it (``intercepts``), and icebp.

RIP is at the instruction, which is done here or faults there. Source: Intel SDM volume 2, RDMSR, WRMSR, MOV (debug
registers) and INT1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.debugregs import DR6_BS
from pvops_core.machine.engines import MSR, READ_DR, WRITE_DR
from pvops_core.x86 import FLAG_TF

if TYPE_CHECKING:
    from pvops_core.machine.cpu.vcpu import Vcpu

_TWO_BYTES: Final = 0x0F
_ICEBP: Final = b"\xf1"
_RDPMC: Final = b"\x0f\x33"  # not among the instructions that the engine decodes
_PREFIXES: Final = bytes.fromhex("26 2e 36 3e 64 65 66 67 f2 f3")
_REGISTERS: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


def answer(vcpu: Vcpu, exit_number: int, detail: int) -> None:
    """Do the instruction, or raise its GuestFault with nothing done.

    Args:
        vcpu: who has left.
        exit_number: as the engine gives it.
        detail: of a register's access, 1 for a write.
    """
    if exit_number == MSR:
        _access_msr(vcpu, write=bool(detail))
        _step(vcpu)
    elif READ_DR <= exit_number < READ_DR + 8 or WRITE_DR <= exit_number < WRITE_DR + 8:
        _move_debug_register(vcpu, exit_number & 7, write=exit_number >= WRITE_DR)
        _step(vcpu)
    else:
        raise AssertionError(f"an exit {exit_number:#x} that nobody chose")


def _step(vcpu: Vcpu) -> None:
    """The instruction has been executed, which the engine does not know."""
    # The engine has left at the instruction instead of stepping over it, so single-step's trap is for us to raise.
    if vcpu.rflags & FLAG_TF:
        vcpu.debug.raise_(DR6_BS)


def _prefixes(vcpu: Vcpu, opcode: int) -> int:
    """How many bytes stand before the opcode."""
    count = 0
    while vcpu.u8(_linear(vcpu) + count) != opcode:
        count += 1
    return count


def icebp(vcpu: Vcpu) -> bool:
    """Do the icebp at RIP, which the engine does not know; False if it is another undefined instruction."""
    code = vcpu.virtual.code(_linear(vcpu))
    rest = code.lstrip(_PREFIXES)
    if rest[:1] != _ICEBP:
        return False
    # A trap: RIP is behind it, and DR6 stays as it is (SDM volume 2, INT1).
    vcpu.rip += len(code) - len(rest) + 1
    vcpu.debug.raise_(0)
    return True


def is_rdpmc(vcpu: Vcpu) -> bool:
    """Whether it is rdpmc, which the engine does not know either: there are no counters, so it is #GP(0)."""
    return vcpu.virtual.code(_linear(vcpu)).lstrip(_PREFIXES).startswith(_RDPMC)


def _linear(vcpu: Vcpu) -> int:
    return vcpu.rip if vcpu.in_64_bit_code else vcpu.rip + vcpu.segment("cs")[1]


def _access_msr(vcpu: Vcpu, *, write: bool) -> None:
    counts = vcpu.machine.counts
    number = vcpu.get("rcx") & 0xFFFFFFFF
    if write:
        counts["msr_writes"] += 1
        # The high halves of RAX and RDX are ignored by wrmsr and cleared by rdmsr (SDM volume 2).
        vcpu.insn.wrmsr(number, vcpu.get("rdx") << 32 & (1 << 64) - 1 | vcpu.get("rax") & 0xFFFFFFFF)
    else:
        counts["msr_reads"] += 1
        value = vcpu.insn.rdmsr(number)
        vcpu.set("rax", value & 0xFFFFFFFF)
        vcpu.set("rdx", value >> 32)
    vcpu.rip += _prefixes(vcpu, _TWO_BYTES) + 2


def _move_debug_register(vcpu: Vcpu, number: int, *, write: bool) -> None:
    before = _prefixes(vcpu, _TWO_BYTES)
    at = _linear(vcpu) + before
    # Only the prefix right before the opcode is a REX (SDM volume 2, 2.2.1); 41H masked: B is set, W, R and X may be.
    extended = vcpu.in_64_bit_code and before and vcpu.u8(at - 1) & 0xF1 == 0x41  # REX.B
    name = _REGISTERS[vcpu.u8(at + 2) & 7 | (8 if extended else 0)]
    if write:
        vcpu.insn.mov_to_dr(number, vcpu.get(name))
    else:
        vcpu.set(name, vcpu.insn.mov_from_dr(number))
    # 0FH, the opcode and ModRM: mov of a debug register takes registers alone, so there is no more.
    vcpu.rip += before + 3
