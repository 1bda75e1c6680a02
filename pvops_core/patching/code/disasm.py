"""Machine code as plain data: the one module that knows the disassembler.

Only instructions whose effects the disassembler reports truly, or that are put right here, are taken: code put into a
kernel's text must be understood wholly or not at all. Register effects are those of the Intel SDM, volume 2.
"""

from __future__ import annotations

import enum
import re
from functools import cache
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PatchError
from pvops_core.lazily import later

if TYPE_CHECKING:
    from collections.abc import Iterator

    import capstone
    from capstone import x86_const
else:  # in most processes nothing is disassembled
    capstone, x86_const = later("capstone"), later("capstone.x86_const")

_PLAIN = """
    adc add and bsf bsr bt btc btr bts call cdq cdqe clac cld cli clts cmp cpuid cqo cwde dec endbr32 endbr64
    hlt in inc int invlpg iretd iretq jmp lea lfence lgdt lidt lldt lmsw ltr mfence mov movabs movsx movsxd movzx neg
    nop not or out pause pop popfd popfq push pushfd pushfq rdmsr rdpmc rdtsc ret rol ror sar sbb sfence sgdt shl shr
    sidt sldt smsw stac sti str sub swapgs syscall sysexit sysret sysretq test vmcall vmmcall wbinvd wrmsr xadd xchg
    xor cmpxchg
"""
_KNOWN = frozenset(_PLAIN.split())
_KNOWN_FAMILIES = re.compile(r"^(?:j|set|cmov)[a-z]{1,3}$")
_PREFIX = re.compile(r"^(?:lock|notrack) ")

# What these do to registers by themselves, where the disassembler is silent (Intel SDM volume 2, their pages).
_EXTRA_WRITES = {
    "cmpxchg": ("rax",),
    "syscall": ("rcx", "r11"),
}
"""Registers that these instructions write and the disassembler does not name."""

_WRITE_THEIR_OPERAND = re.compile(r"^(?:cmpxchg|rol|ror|set\w+)$")
"""Instructions whose memory operand the disassembler, for some of them, calls read only."""

_FAMILIES = {
    **{name: f"r{name[-2:]}" for letter in "abcd" for name in (f"r{letter}x", f"e{letter}x", f"{letter}x")},
    **{f"{letter}{half}": f"r{letter}x" for letter in "abcd" for half in "lh"},
    **{f"{width}{name}": f"r{name}" for name in ("si", "di", "bp", "sp") for width in ("r", "e", "")},
    **{f"{name}l": f"r{name}" for name in ("si", "di", "bp", "sp")},
    **{f"r{number}{width}": f"r{number}" for number in range(8, 16) for width in ("", "d", "w", "b")},
}
"""Every name of a general register, to the name of its 64 bits."""


class Flow(enum.Enum):
    """Where an instruction leads."""

    ON = "on"
    CALL = "call"
    JUMP = "jump"
    BRANCH = "branch"
    RETURN = "return"
    LEAVE = "leave"
    """Out of the kernel's straight line for good: iret, sysexit, sysret."""


@attrs.frozen
class Memory:
    """A memory operand.

    Attributes:
        base: base register by the name of its full width, or None; ``rip`` never: ``address`` holds what it comes to.
        index: index register likewise.
        segment: ``fs`` or ``gs`` if the instruction names one.
        address: the displacement, or the address itself where there is no base and no index.
        written: whether the instruction writes it.
    """

    base: str | None
    index: str | None
    segment: str | None
    address: int
    written: bool


@attrs.frozen
class Instruction:
    """One instruction.

    Attributes:
        address: where it lies.
        size: its bytes.
        mnemonic: its name, without prefixes.
        text: name and operands in Intel syntax, numbers in hexadecimal, ``rip``-relative operands as ``[rel ADDRESS]``.
        reads: general registers that it reads, by the names of their full width, the stack pointer not among them.
        writes: general registers that it writes, likewise.
        others: other registers that it names, such as ``cr3`` or ``xmm0``.
        memory: its memory operands.
        flow: where it leads.
        target: address that it calls or jumps to, if it says so itself.
        moves_stack: whether it changes the stack pointer other than by push, pop or call.
        copies: destination and source of a register copy of full width.
        operand: register that it pushes or pops, if it does.
    """

    address: int
    size: int
    mnemonic: str
    text: str
    reads: frozenset[str]
    writes: frozenset[str]
    others: frozenset[str]
    memory: tuple[Memory, ...]
    flow: Flow
    target: int | None
    moves_stack: bool
    copies: tuple[str, str] | None
    operand: str | None


@cache
def _engine(bits: int) -> capstone.Cs:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)
    # Operands, registers and access need details; listings go without.
    engine.detail = True
    return engine


def disassemble(code: bytes, address: int, bits: int) -> tuple[Instruction, ...]:
    """Decode code wholly.

    Args:
        code: the bytes.
        address: where they lie or will lie.
        bits: 32 or 64, the mode they run in.

    Raises:
        PatchError: some bytes are no instruction, or one whose effects are not known here.
    """
    found = tuple(_decode(insn, bits) for insn in _engine(bits).disasm(code, address))
    done = sum(insn.size for insn in found)
    # Undecoded bytes would run as something else once they are in guest text.
    if done != len(code):
        raise PatchError(f"the bytes from {done} on are not a whole instruction", code=code)
    return found


def instruction_lengths(code: bytes, bits: int) -> list[int]:
    """Lengths of the instructions from the first byte on, ending before the first that cannot be decoded.

    Args:
        code: the bytes.
        bits: 32 or 64, the mode they run in.
    """
    return [size for _address, size, _mnemonic, _operands in _engine(bits).disasm_lite(code, 0)]


@attrs.frozen
class Encoding:
    """An instruction's bytes, as far as those who move code need them.

    Attributes:
        size: bytes.
        nop: whether it is one of the nops that the kernel joins: 90 of any prefix but rep, and 0f 1f.
        relative: place and bytes of what counts from the next instruction: a branch's distance, a rip-relative operand.
    """

    size: int
    nop: bool
    relative: tuple[tuple[int, int], ...] = ()


def encodings(code: bytes, bits: int) -> tuple[Encoding, ...]:
    """The encodings of the instructions from the first byte on, ending before the first that cannot be decoded.

    Args:
        code: the bytes.
        bits: 32 or 64, the mode they run in.
    """
    found: list[Encoding] = []
    done = 0
    while True:
        for insn in _engine(bits).disasm(code[done:], 0):
            found.append(_encoding(insn, bits))
            done += insn.size
        # Instructions that this disassembler is too old for, by their length alone.
        size = _system_size(code[done:])
        if not size:
            return tuple(found)
        found.append(Encoding(size, nop=False))
        done += size


def _system_size(code: bytes) -> int:
    """Bytes of a register form of ``0f 01``, all of which are three long (Intel SDM volume 2, table A-6), or 0.

    The disassembler lacks the youngest of them, such as wrmsrns.
    """
    start = 1 if code[:1] in {b"\x66", b"\xf2", b"\xf3"} else 0
    known = code[start : start + 2] == b"\x0f\x01" and len(code) > start + 2 and code[start + 2] >= 0xC0
    return start + 3 if known else 0


def _encoding(insn: capstone.CsInsn, bits: int) -> Encoding:
    first, second = insn.opcode[:2]
    # F3 90 is pause; 0f 1f the nop with an operand
    nop = (first == 0x90 and insn.bytes[0] != 0xF3) or (first, second) == (0x0F, 0x1F)
    relative = []
    if first in {0xE8, 0xE9} or (first == 0x0F and second & 0xF0 == 0x80):  # call, jmp and jcc rel32
        relative.append((insn.size - 4, 4))
    elif first == 0xEB or first & 0xF0 == 0x70:  # jmp and jcc rel8
        relative.append((insn.size - 1, 1))
    # Mod 00B, r/m 101B: rip-relative (SDM volume 2, 2.2.1.6)
    if bits == 64 and insn.encoding.modrm_offset and insn.modrm & 0xC7 == 5:
        relative.append((insn.encoding.disp_offset, 4))
    return Encoding(insn.size, nop, tuple(relative))


def memory_size(code: bytes, bits: int) -> int:
    """Bytes that the first instruction reads or writes in memory, at most; 0 if none, or if it cannot be decoded.

    Args:
        code: the bytes.
        bits: 32 or 64, the mode they run in.
    """
    instruction = next(_engine(bits).disasm(code, 0, 1), None)
    if instruction is None:
        return 0
    return max((operand.size for operand in instruction.operands if operand.type == x86_const.X86_OP_MEM), default=0)


def listing(code: bytes, address: int, bits: int) -> list[tuple[int, bytes, str]]:
    """Whatever bytes amount to, for people to read: address, bytes and text of each instruction.

    Args:
        code: the bytes, which may be garbage: one that begins no instruction is ``(bad)``.
        address: where they lie.
        bits: 32 or 64, the mode they would run in.
    """
    lines: list[tuple[int, bytes, str]] = []
    done = 0
    while done < len(code):
        for insn in _engine(bits).disasm(code[done:], address + done):
            lines.append((insn.address, bytes(insn.bytes), f"{insn.mnemonic} {insn.op_str}".rstrip()))
            done += insn.size
        if done < len(code):
            lines.append((address + done, code[done : done + 1], "(bad)"))
            done += 1
    return lines


def _decode(insn: capstone.CsInsn, bits: int) -> Instruction:
    mnemonic = _PREFIX.sub("", insn.mnemonic)
    if mnemonic not in _KNOWN and not _KNOWN_FAMILIES.match(mnemonic):
        raise PatchError(f"{insn.mnemonic}: not among the instructions whose effects are known", code=bytes(insn.bytes))
    read, written = ([insn.reg_name(number) for number in numbers] for numbers in insn.regs_access())
    named = {*read, *written}
    extra = {name for name in _EXTRA_WRITES.get(mnemonic, ()) if bits == 64 or name == "rax"}
    stack = {"push", "pop", "call", "ret", "pushfd", "pushfq", "popfd", "popfq"}
    return Instruction(
        address=insn.address,
        size=insn.size,
        mnemonic=mnemonic,
        text=_text(insn),
        # Both operands of test are read (SDM volume 2, TEST).
        reads=_general([*read, *_tested(insn, mnemonic)], bits),
        writes=_general([*written, *extra], bits),
        others=frozenset(name for name in named if name not in _FAMILIES),
        memory=tuple(_memory(insn, bits, mnemonic)),
        flow=_flow(insn, mnemonic),
        target=_target(insn),
        # What pushes and pops move is counted by the walk over the code; anything else that moves RSP is not.
        moves_stack=any(_FAMILIES.get(name) == "rsp" for name in written) and mnemonic not in stack,
        copies=_copy(insn, mnemonic, bits),
        operand=_operand(insn, mnemonic, bits),
    )


def _full(name: str, bits: int) -> str:
    # A 32-bit register's write clears the upper half, so it counts as the whole register (SDM volume 1, 3.4.1.1).
    family = _FAMILIES[name]
    return family if bits == 64 else f"e{family[1:]}"


def _general(names: list[str], bits: int) -> frozenset[str]:
    return frozenset(_full(name, bits) for name in names if _FAMILIES.get(name, "rsp") != "rsp")


def _memory(insn: capstone.CsInsn, bits: int, mnemonic: str) -> Iterator[Memory]:
    for operand in insn.operands:
        # lea computes an address and nop ignores its operand: neither touches memory.
        if operand.type != x86_const.X86_OP_MEM or mnemonic in {"lea", "nop"}:
            continue
        relative = operand.mem.base == x86_const.X86_REG_RIP
        # rip is the address behind the instruction (SDM volume 2, 2.2.1.6).
        address = operand.mem.disp + (insn.address + insn.size if relative else 0)
        written = bool(operand.access & capstone.CS_AC_WRITE) or bool(_WRITE_THEIR_OPERAND.match(mnemonic))
        yield Memory(
            base=None if relative else _pointer(insn, operand.mem.base, bits),
            index=_pointer(insn, operand.mem.index, bits),
            segment=insn.reg_name(operand.mem.segment) if operand.mem.segment else None,
            address=address & ((1 << bits) - 1),
            written=written,
        )


def _tested(insn: capstone.CsInsn, mnemonic: str) -> list[str]:
    """The register operands of ``test``, of which the disassembler forgets the second."""
    registers = (operand for operand in insn.operands if operand.type == x86_const.X86_OP_REG)
    return [insn.reg_name(operand.reg) for operand in registers] if mnemonic == "test" else []


def _pointer(insn: capstone.CsInsn, number: int, bits: int) -> str | None:
    """Register that an address is made of; capstone names two that stand for none."""
    if number in {x86_const.X86_REG_INVALID, x86_const.X86_REG_RIZ, x86_const.X86_REG_EIZ}:
        return None
    name: str = insn.reg_name(number)
    # Part of a register in an address (16-bit addressing) is beyond what can be followed.
    if name not in _FAMILIES or name != _full(name, bits):
        raise PatchError(f"{insn.mnemonic} {insn.op_str}: {name} is no whole pointer", code=bytes(insn.bytes))
    return name


def _flow(insn: capstone.CsInsn, mnemonic: str) -> Flow:
    if insn.group(x86_const.X86_GRP_CALL):
        return Flow.CALL
    if insn.group(x86_const.X86_GRP_RET):
        return Flow.RETURN
    if insn.group(x86_const.X86_GRP_IRET):
        return Flow.LEAVE
    if insn.group(x86_const.X86_GRP_JUMP):
        return Flow.JUMP if mnemonic == "jmp" else Flow.BRANCH
    return Flow.ON


def _target(insn: capstone.CsInsn) -> int | None:
    if insn.group(x86_const.X86_GRP_BRANCH_RELATIVE):
        return int(insn.operands[0].imm)
    return None


def _copy(insn: capstone.CsInsn, mnemonic: str, bits: int) -> tuple[str, str] | None:
    operands = insn.operands
    if mnemonic != "mov" or any(operand.type != x86_const.X86_OP_REG for operand in operands):
        return None
    destination, source = (insn.reg_name(operand.reg) for operand in operands)
    whole = all(name in _FAMILIES and name == _full(name, bits) for name in (destination, source))
    return (destination, source) if whole else None


def _operand(insn: capstone.CsInsn, mnemonic: str, bits: int) -> str | None:
    if mnemonic not in {"push", "pop"} or insn.operands[0].type != x86_const.X86_OP_REG:
        return None
    name = insn.reg_name(insn.operands[0].reg)
    return name if name in _FAMILIES and name == _full(name, bits) else None


_RIP = re.compile(r"\[rip (?P<sign>[+-]) (?P<number>\w+)\]")
_NUMBER = re.compile(r"\b(?:0x[0-9a-f]+|[0-9]+)\b")


_SPACED = re.compile(r"\s*([+*-])\s*")
_COMMA = re.compile(r"\s*,\s*")
_BRACKET = re.compile(r"\s*\[\s*")
_SEGMENT = re.compile(r"\s*:\s*\[")


def normal(text: str) -> str:
    """Instruction text with spaces and numbers in the one form that ``Instruction.text`` has."""
    text = _SPACED.sub(r" \1 ", _COMMA.sub(", ", text.lower()))
    text = _SEGMENT.sub(":[", _BRACKET.sub(" [", text)).replace(" ]", "]")
    return " ".join(_NUMBER.sub(_hexadecimal, text).split())


def _hexadecimal(match: re.Match[str]) -> str:
    number = match[0]
    return hex(int(number, 16 if number.startswith("0x") else 10))


def _text(insn: capstone.CsInsn) -> str:
    def absolute(match: re.Match[str]) -> str:
        offset = int(match["number"], 0) * (-1 if match["sign"] == "-" else 1)
        return f"[rel {insn.address + insn.size + offset:#x}]"

    return normal(_RIP.sub(absolute, f"{insn.mnemonic} {insn.op_str}"))
