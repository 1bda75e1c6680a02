"""The process that assembles: LLVM's own assembler, which comes with llvmlite, ends the process that gives it nonsense.

A request is a line of JSON on standard input, [text, bits, base]; the answer is one on standard output: the bytes in
hexadecimal, or {"error": message}.
"""

from __future__ import annotations

import functools
import io
import json
import sys
from typing import TYPE_CHECKING, Final

import llvmlite.binding as llvm
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from pvops_core.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIPLES: Final = {64: "x86_64-unknown-linux-gnu", 32: "i386-unknown-linux-gnu"}
# Relocation type to its size, and whether it counts from the place where it is.
_RELOCATIONS: Final = {
    64: {1: (8, False), 2: (4, True), 10: (4, False), 11: (4, False)},  # R_X86_64_64 PC32 32 32S
    32: {1: (4, False), 2: (4, True)},  # R_386_32 PC32
}


@functools.cache
def _target(bits: int) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_triple(_TRIPLES[bits]).create_target_machine(reloc="static")


def _escaped(text: str) -> str:
    return "".join(char if char.isalnum() or char in " ,.:_-+*/()[]" else f"\\{ord(char):02X}" for char in text)


def serve() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        try:
            answer: object = _assembled(*json.loads(line)).hex()
        except MachineError as error:
            answer = {"error": error.message}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _assembled(text: str, bits: int, base: int) -> bytes:
    body = _escaped(f".intel_syntax noprefix; {text}\n.att_syntax\n")
    source = f'target triple = "{_TRIPLES[bits]}"\nmodule asm "{body}"\n'
    image = ELFFile(io.BytesIO(_target(bits).emit_object(llvm.parse_assembly(source))))
    number = image.get_section_index(".text") or 0
    code = bytearray(image.get_section(number).data())
    for place, size, value, relative in _fixes(image, number, bits):
        address = base + value - (base + place if relative else 0)
        code[place : place + size] = (address & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(code)


def _fixes(image: ELFFile, number: int, bits: int) -> Iterator[tuple[int, int, int, bool]]:
    """Place, size, value before the base is added, and whether it is relative."""
    symbols = image.get_section_by_name(".symtab")
    if not isinstance(symbols, SymbolTableSection):
        return
    for section in image.iter_sections():
        if not isinstance(section, RelocationSection) or section["sh_info"] != number:
            continue
        code = image.get_section(number).data()
        for relocation in section.iter_relocations():
            symbol = symbols.get_symbol(relocation["r_info_sym"])
            size, relative = _RELOCATIONS[bits].get(relocation["r_info_type"], (0, False))
            if symbol["st_shndx"] != number or not size:
                raise MachineError(f"the code refers to {symbol.name or 'something'} outside itself")
            place = relocation["r_offset"]
            own = int.from_bytes(code[place : place + size], "little", signed=True)
            yield place, size, symbol["st_value"] + (relocation["r_addend"] if section.is_RELA() else own), relative
