"""What memory the instruction at RIP touches, and through which segment: what the engine does not tell of a fault.

Imported when first needed: sound guests hardly do. Source: Intel SDM volume 1, 3.7.4 (which segment goes with which
register), and volume 2, the pages of the instructions that use the stack.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import attrs
import capstone
from capstone import x86_const

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.machine.cpu.core import Core

_POPS: Final = {"pop": 1, "popf": 1, "ret": 1, "leave": 1, "retf": 2, "iret": 3}
_PUSHES: Final = {"push": 1, "pushf": 1, "call": 1, "lcall": 2}
ALL_REGISTERS: Final = {"pushal": 4, "pushaw": 2, "popal": 4, "popaw": 2}
"""Those that access the stack eight times, with the width of each access."""
_ONLY_LOOK: Final = frozenset({"lea", "nop", "invlpg"})
_BIT_STRINGS: Final = frozenset({"bt", "bts", "btr", "btc"})
"""With a register they reach any bit from their operand on: Intel SDM volume 2, 3.1.1.9, Bit(BitBase, BitOffset)."""
_REFUSED_FIRST: Final = frozenset({"lgdt", "lidt", "lldt", "ltr", "lmsw"})
"""Refused outside of level 0 before they look at their operand."""
_BY_NAME: Final = {"w": 2, "d": 4, "q": 8}
_WRITING: Final = (
    *("mov", "vmov", "pextr", "vpextr", "extract", "vextract", "cmpxchg"),
    *("fst", "fist", "fnstcw", "stmxcsr", "vstmxcsr", "rcl", "rcr", "ror"),
)
"""Beginnings of the names of those that write their first operand although the disassembler does not say so."""
_READING: Final = "frstor"
"""It says of this one that it writes."""
_STACK_NAMES: Final = ("push", "pop", "call", "lcall", "ret", "iret", "leave")
# Prefixes (SDM volume 2, 2.1.1)
_NAMES: Final = {0x2E: "cs", 0x36: "ss", 0x3E: "ds", 0x26: "es", 0x64: "fs", 0x65: "gs"}
_STACK_POINTERS: Final = frozenset({"rsp", "rbp", "esp", "ebp", "sp", "bp"})
_EVERYWHERE: Final = frozenset({"fs", "gs"})
"""Segments that an instruction may name in 64-bit code too; the other prefixes are ignored there."""


@attrs.frozen
class MemoryAccess:
    """One memory access of an instruction.

    Attributes:
        segment: "cs", "ds", "es", "fs", "gs" or "ss".
        offset: into the segment, before its base is added.
        size: bytes.
        write: it may be written.
    """

    segment: str
    offset: int
    size: int
    write: bool


_MODES: Final = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}


@cache
def _disassembler(bits: int) -> capstone.Cs:
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, _MODES[bits])
    disassembler.detail = True
    return disassembler


def code_bits(vcpu: Core) -> int:
    """Width of the code that runs: 16, 32 or 64 bits."""
    high = vcpu.segment("cs")[3]
    # L and D of the descriptor's second word (SDM volume 3, 3.4.5); L counts in long mode only.
    return 64 if high & 1 << 21 and vcpu.long_mode else 32 if high & 1 << 22 else 16


def instruction(vcpu: Core, bits: int) -> Any | None:  # noqa: ANN401 - the disassembler has no types
    """The instruction at RIP, None where there is none that is known or it cannot be fetched."""
    start = vcpu.rip if bits == 64 else vcpu.rip + vcpu.segment("cs")[1]
    return next(_disassembler(bits).disasm(vcpu.virtual.code(start), vcpu.rip, 1), None)


def disassembled(code: bytes, start: int, bits: int) -> Iterator[Any]:
    """The instructions of a piece of code, as far as they are known."""
    return iter(_disassembler(bits).disasm(code, start))


def in_memory(operand: Any) -> bool:  # noqa: ANN401
    """Whether an operand of an instruction is in memory."""
    return bool(operand.type == x86_const.X86_OP_MEM)


def mnemonics(code: bytes, bits: int) -> Iterator[str]:
    """The names of the instructions of a piece of code, prefixes left out; four times as fast as with details."""
    return (name.rsplit(" ", 1)[-1] for _, _, name, _ in _plain_disassembler(bits).disasm_lite(code, 0))


@cache
def _plain_disassembler(bits: int) -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, _MODES[bits])


@attrs.frozen
class Touch:
    """What an instruction's bytes say of one access: ``offset`` only if it is a number among them."""

    segment: str
    offset: int | None
    size: int
    write: bool


def touches(found: Any) -> list[Touch]:  # noqa: ANN401 - the disassembler has no types
    """The accesses of an instruction of 32-bit code."""
    name = found.mnemonic.split()[-1]
    on_stack = name in ALL_REGISTERS or name == "enter" or name.startswith(_STACK_NAMES)
    touched = [Touch("ss", None, 4, write=True)] if on_stack else []
    if name == "xlatb":
        touched.append(Touch(_NAMES.get(found.prefix[1], "ds"), None, 1, write=False))
    if name in _ONLY_LOOK or name.startswith("prefetch"):
        return touched
    for operand in found.operands:
        if in_memory(operand):
            place = operand.mem
            base = found.reg_name(place.base)
            segment = found.reg_name(place.segment) or ("ss" if base in _STACK_POINTERS else "ds")
            constant = None if base or place.index else place.disp & (1 << 8 * found.addr_size) - 1
            touched.append(Touch(segment, constant, operand.size, _writes(found, operand)))
    return touched


def _writes(found: Any, operand: Any) -> bool:  # noqa: ANN401
    """Whether an instruction may write an operand in memory, which is the first if it is its destination."""
    name = found.mnemonic.split()[-1]
    if operand.access & capstone.CS_AC_WRITE:
        return bool(name != _READING)
    memory = [in_memory(each) for each in found.operands]
    return bool(
        memory[0] and sum(memory) == 1 and name.startswith(_WRITING)
    )  # of a string's two it says which is written


def accesses(vcpu: Core) -> tuple[MemoryAccess, ...]:
    """The accesses of the instruction at RIP in the order in which they are made; of a repeated one, the next time."""
    bits = code_bits(vcpu)
    found = instruction(vcpu, bits)
    return tuple(_OperandReader(vcpu, bits, found).all()) if found is not None else ()


class _OperandReader:
    """Reads the accesses off one instruction."""

    def __init__(self, vcpu: Core, bits: int, found: Any) -> None:  # noqa: ANN401
        self._vcpu = vcpu
        self._bits = bits
        self._found = found
        self._name = found.mnemonic.split()[-1]
        # The stack's width is SS's B, whatever the code's (SDM volume 3, 3.4.5), and 66H gives the operands' the other
        # one.
        self._wide = bits if bits == 64 else 32 if vcpu.segment("ss")[3] & 1 << 22 else 16
        short = 0x66 in found.prefix
        self._word = (2 if short else 8) if bits == 64 else 2 if short != (bits == 16) else 4

    def all(self) -> list[MemoryAccess]:
        """Reads of the stack come first, pushes last."""
        popped, pushed = self._popped(), self._pushed()
        # With a stack pointer as its base, pop's operand is looked for after the pop (SDM volume 2, POP).
        return [*popped, *self._operands(self._word if popped and self._name == "pop" else 0), *pushed]

    def _register(self, name: str, ahead: int = 0) -> int:
        value = self._vcpu.get(name) if name not in {"rip", "eip"} else self._vcpu.rip + self._found.size
        return value + (ahead if name in {"rsp", "esp", "sp"} else 0)

    def _stack(self, name: str, distance: int, size: int, *, write: bool) -> MemoryAccess:
        pointer = {64: "r", 32: "e", 16: ""}[self._wide] + name
        return MemoryAccess("ss", self._vcpu.get(pointer) + distance & (1 << self._wide) - 1, size, write)

    def _family(self) -> tuple[str, int]:
        """Name without the letter of its width, and the width of its words."""
        name = self._name
        for family in ("retf", "iret", "popf", "pushf"):
            if name.startswith(family):
                width = _BY_NAME.get(name[len(family) :])
                # A return takes 32 bits in 64-bit code too, unless REX.W says 64 (SDM volume 2, RET, IRET)
                plain = self._word if family in {"popf", "pushf"} else min(self._word, 4)
                return family, width or plain
        return name, self._word

    def _popped(self) -> list[MemoryAccess]:
        family, word = self._family()
        if family in ALL_REGISTERS and family.startswith("popa"):
            return [self._stack("sp", 0, 8 * ALL_REGISTERS[family], write=False)]
        if family not in _POPS:
            return []
        # In 64-bit mode iret pops SS and RSP always (SDM volume 2, IRETQ).
        count = 5 if family == "iret" and self._bits == 64 else _POPS[family]
        pointer = "bp" if family == "leave" else "sp"
        return [self._stack(pointer, at * word, word, write=False) for at in range(count)]

    def _pushed(self) -> list[MemoryAccess]:
        family, word = self._family()
        if family in ALL_REGISTERS:
            size = ALL_REGISTERS[family]
            return [self._stack("sp", -size * at, size, write=True) for at in range(1, 9) if family.startswith("push")]
        if family == "enter":
            return self._entered(word)
        if family == "call" and self._far():
            family = "lcall"
        return [self._stack("sp", -word * at, word, write=True) for at in range(1, _PUSHES.get(family, 0) + 1)]

    def _far(self) -> bool:
        """An indirect far call, which the disassembler does not tell from a near one: FF /3."""
        return bool(self._found.opcode[0] == 0xFF and self._found.modrm >> 3 & 7 == 3)

    def _entered(self, word: int) -> list[MemoryAccess]:
        # So deep at most, and each level copies a frame pointer (SDM volume 2, ENTER)
        level = self._found.operands[1].imm & 31
        found = [self._stack("sp", -word, word, write=True)]
        for at in range(1, level):
            found.append(self._stack("bp", -word * at, word, write=False))
            found.append(self._stack("sp", -word * (at + 1), word, write=True))
        if level:
            found.append(self._stack("sp", -word * (level + 1), word, write=True))
        return found

    def _operands(self, ahead: int) -> list[MemoryAccess]:
        # nop and prefetch have an operand that is never accessed: neither faults on it (SDM volume 2, NOP,
        # PREFETCHh).
        if self._name in _ONLY_LOOK or self._name.startswith("prefetch"):
            return []
        # Privilege is checked before the operand, so no page fault of it comes first.
        if self._name in _REFUSED_FIRST and self._vcpu.cpl:
            return []
        if self._name == "xlatb":
            table = self._vcpu.get({8: "rbx", 4: "ebx", 2: "bx"}[self._found.addr_size])
            return [self._access(self._prefix() or "ds", table + (self._vcpu.get("al") & 0xFF), 1, write=False)]
        memory = [operand for operand in self._found.operands if in_memory(operand)]
        found = [self._operand(operand, ahead) for operand in memory]
        # Reads first: an instruction that reads one operand and writes another faults at the read (e.g. movs).
        return sorted(found, key=lambda access: access.write)

    def _prefix(self) -> str | None:
        name = _NAMES.get(self._found.prefix[1])
        return name if self._bits != 64 or name in _EVERYWHERE else None

    def _operand(self, operand: Any, ahead: int) -> MemoryAccess:  # noqa: ANN401
        place = operand.mem
        base, index = (self._found.reg_name(number) for number in (place.base, place.index))
        offset = place.disp
        if base:
            offset += self._register(base, ahead)
        if index and index not in {"riz", "eiz"}:
            offset += self._vcpu.get(index) * place.scale
        if self._name in _BIT_STRINGS and self._found.operands[1].type == x86_const.X86_OP_REG:
            offset += self._bits_away(operand.size)
        named = self._found.reg_name(place.segment)
        segment = named if named and (self._bits != 64 or named in _EVERYWHERE) else None
        segment = segment or ("ss" if base in _STACK_POINTERS else "ds")
        return self._access(segment, offset, operand.size, write=_writes(self._found, operand))

    def _bits_away(self, size: int) -> int:
        """How far from the operand's address the word is that has the bit which a register names."""
        value = self._vcpu.get(self._found.reg_name(self._found.operands[1].reg))
        # Two's complement of the operand's width: a register may name bits before the operand.
        sign = 1 << 8 * size - 1
        bit = ((value & 2 * sign - 1) ^ sign) - sign
        return bit // (8 * size) * size

    def _access(self, segment: str, offset: int, size: int, *, write: bool) -> MemoryAccess:
        return MemoryAccess(segment, offset & (1 << 8 * self._found.addr_size) - 1, size, write)
