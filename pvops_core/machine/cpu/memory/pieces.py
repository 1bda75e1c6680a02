"""Instructions of 16- and 32-bit code that access more memory than the engine accesses at once, and what of it.

A processor does all of such an instruction or nothing where a page is refused (Intel SDM volume 3, 6.5: faults). Not
here are moves of 16 bytes. Where they want their operand aligned, as movaps does, it lies on one page or is #GP, which
the engine does not know. Copying is made of the others: a hook before each makes a boot a twelfth slower, and the
manual lets half of such a store be seen (volume 3, 8.1.1). Sizes of images, and which must be aligned: volume 2,
FXSAVE, FSAVE, FSTENV.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs

from pvops_core.machine.cpu.memory.decode import ALL_REGISTERS, disassembled, in_memory, mnemonics

if TYPE_CHECKING:
    from pvops_core.machine.cpu.core import Core

_SAVING: Final = {"fxsave": 512, "fnsave": 108, "fnstenv": 28, "fbstp": 10}
_LOADING: Final = {"fxrstor": 512, "frstor": 108, "fldenv": 28}
_SHORT: Final = {108: 94, 28: 14}
"""Images of the x87 with an operand size of 16 bits."""
_LONG_DOUBLE: Final = 10
_MASKED: Final = {"maskmovq": 8, "maskmovdqu": 16}
_TABLES: Final = frozenset({"sgdt", "sidt"})
_SPECIAL: Final = frozenset({"insb", "insw", "insd", "enter", "call", "lcall", *ALL_REGISTERS})
_NAMES: Final = frozenset({*_SAVING, *_LOADING, *_MASKED, *_TABLES, "fstp", *_SPECIAL})
_X87: Final = frozenset({"fnsave", "fnstenv", "frstor", "fldenv", "fstp", "fbstp"})
_NO_UNIT: Final = frozenset({*_TABLES, *_SPECIAL})
_EM, _TS, _OSFXSR = 1 << 2, 1 << 3, 1 << 9
_FAR: Final = 3
_INDIRECT, _DIRECT = 0xFF, 0x9A


@attrs.frozen
class Piece:
    """The part of an instruction's accesses that is made in pieces.

    Attributes:
        address: of the instruction.
        name: of the instruction.
        segment: named by it.
        base, index: registers, empty for none.
        scale: of the index.
        distance: added to them.
        width: bits of the sum.
        size: bytes.
        write: it is written.
        aligned: it must lie at a multiple of 16.
    """

    address: int
    name: str
    segment: str
    base: str
    index: str
    scale: int
    distance: int
    width: int
    size: int
    write: bool
    aligned: bool = False

    @property
    def is_input(self) -> bool:
        """Of ``ins``, which stores a zero before it asks whether the port may be read."""
        return self.name.startswith("ins")

    @property
    def is_words(self) -> bool:
        """Of one that pushes or pops words, in an order that decides which page is named in a fault."""
        return self.name in _SPECIAL and not self.is_input

    @property
    def registers(self) -> tuple[str, ...]:
        """Those of its place."""
        return tuple(name for name in (self.base, self.index) if name)


def pieces(code: bytes, start: int, bits: int, stack: int) -> Iterator[Piece]:
    """Those in a piece of 16- or 32-bit code.

    Args:
        code: its bytes.
        start: linear address of the first.
        bits: width of the code.
        stack: width of the stack pointer.
    """
    if not any(name in _NAMES for name in mnemonics(code, bits)):
        return  # quicker to see without details
    for found in disassembled(code, start, bits):
        if found.mnemonic.split()[-1] in _NAMES and (piece := piece_of(found, bits, stack)) is not None:
            yield piece


def piece_of(found: Any, bits: int, stack: int) -> Piece | None:  # noqa: ANN401 - the disassembler has no types
    """What of an instruction is accessed in pieces, None for nothing."""
    name, width = found.mnemonic.split()[-1], 8 * found.addr_size
    if name not in _NAMES:
        return None
    if name in _SPECIAL:
        return _of_stack(found, name, bits, stack)
    if name in _MASKED:
        letter = {4: "e", 2: ""}[found.addr_size]
        return Piece(found.address, name, "ds", f"{letter}di", "", 1, 0, width, _MASKED[name], write=True)
    memory = [each for each in found.operands if in_memory(each)]
    if len(memory) != 1 or (name == "fstp" and memory[0].size != _LONG_DOUBLE):
        return None
    place = memory[0].mem
    base, index = (found.reg_name(number) or "" for number in (place.base, place.index))
    distance = place.disp
    segment = found.reg_name(place.segment) or ("ss" if base in {"esp", "ebp", "bp"} else "ds")
    aligned = name.startswith(("fxsave", "fxrstor"))
    write = name not in _LOADING and in_memory(found.operands[0])
    index = "" if index == "eiz" else index
    return Piece(
        found.address, name, segment, base, index, place.scale, distance, width,
        _size(found, name, bits),
        write=write, aligned=aligned,
    )  # fmt: skip


def _size(found: Any, name: str, bits: int) -> int:  # noqa: ANN401
    if name in _TABLES:
        return 6
    if name == "fstp":
        return _LONG_DOUBLE
    size = _SAVING.get(name) or _LOADING[name]
    return _SHORT.get(size, size) if (0x66 in found.prefix) != (bits == 16) else size


def _of_stack(found: Any, name: str, bits: int, stack: int) -> Piece | None:  # noqa: ANN401
    """Pushes and pops of several words, and ins."""
    pointer = {32: "esp", 16: "sp"}[stack]
    short = (0x66 in found.prefix) != (bits == 16)
    if name.startswith("ins"):
        size, pointer_of = {"b": 1, "w": 2, "d": 4}[name[-1]], {4: "edi", 2: "di"}
        return Piece(
            found.address, name, "es", pointer_of[found.addr_size], "", 1, 0, 8 * found.addr_size, size, write=True
        )
    if name in ALL_REGISTERS:
        size = 8 * ALL_REGISTERS[name]
        pushes = name.startswith("push")
        return Piece(found.address, name, "ss", pointer, "", 1, -size if pushes else 0, stack, size, write=pushes)
    if name == "enter":
        word = 2 if short else 4
        size = word * ((found.operands[1].imm & 31) + 1) + found.operands[0].imm
        return Piece(found.address, name, "ss", pointer, "", 1, -size, stack, size, write=True)
    far = found.opcode[0] == _DIRECT or (found.opcode[0] == _INDIRECT and found.modrm >> 3 & 7 == _FAR)
    if not far:
        return None
    size = 2 * (2 if short else 4)
    return Piece(found.address, name, "ss", pointer, "", 1, -size, stack, size, write=True)


def faults_before(vcpu: Core, piece: Piece) -> bool:
    """Whether the instruction ends in another fault before it touches memory: its unit is off (#NM, #UD)."""
    if piece.name in _NO_UNIT:
        return False
    cr0 = vcpu.cr0
    if cr0 & _TS or cr0 & _EM:
        return True
    is_image = piece.name.startswith(("fxsave", "fxrstor"))
    return piece.name not in _X87 and not is_image and not vcpu.cr4 & _OSFXSR
