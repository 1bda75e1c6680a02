"""How kernels fit a replacement into its place: branches are led to where they led, and what is left becomes nops.

Source: arch/x86/kernel/alternative.c: ``optimize_nops``, ``recompute_jump`` (6.1), ``apply_relocation`` (6.5, from 6.16
on ``text_poke_apply_relocation``), and the order of the two since da8f9cf7e721 (6.10).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from pvops_core.patching.code.disasm import Encoding, encodings, instruction_lengths
from pvops_core.patching.code.nops import NopTable, kernel_nops, nops_of_age
from pvops_core.patching.code.relocation import relocate_code, relocate_replacement

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine.cpu.model.identity import CpuIdentity

NOP: Final = 0x90

RELOCATES: Final = ("apply_relocation", "text_poke_apply_relocation")
"""A kernel that has one of these relocates whatever a replacement holds, not just a lone branch."""

ABSORBS: Final = tuple(f"__optimize_nops{clone}" for clone in ("", ".isra.0", ".constprop.0", ".part.0"))
"""A kernel that has one of these, from 6.5 to 6.9, joins nops as it relocates, and looks for jumps over them."""

_JUMP_SHORT, _JUMP, _INT3 = 0xEB, 0xE9, 0xCC


class Rewriting(Protocol):
    """A generation's way."""

    @property
    def nops(self) -> Callable[[int], bytes]:
        """As many bytes of nops as asked for."""

    def optimize(self, code: bytes) -> bytes:
        """Code that stays where it is, its nops joined."""

    def fill(self, code: bytes, source: int, destination: int, length: int) -> bytes:
        """A replacement as it is written.

        Args:
            code: its bytes as assembled.
            source: virtual address where they are.
            destination: virtual address where they will run.
            length: bytes to fill.
        """


@attrs.frozen(eq=False)
class Padding:
    """The way of 5.13 to 6.4: a lone branch is relocated, and one-byte nops are joined into longer ones.

    Attributes:
        nops: as many bytes of nops as asked for.
        lengths: lengths of the instructions in some code, up to the first that cannot be decoded.
    """

    nops: Callable[[int], bytes]
    lengths: Callable[[bytes], Sequence[int]]
    _done: dict[bytes, bytes] = attrs.field(factory=dict, init=False, repr=False)

    def fill(self, code: bytes, source: int, destination: int, length: int) -> bytes:
        """A replacement as it is written; see :meth:`Rewriting.fill`."""
        # Relocated before padding: nops behind a branch are not its operand.
        moved = relocate_replacement(code, source, destination, self.nops)
        return self.optimize(moved + bytes([NOP]) * (length - len(moved)))

    def optimize(self, code: bytes) -> bytes:
        """Join runs of two and more one-byte nops (``optimize_nops`` of arch/x86/kernel/alternative.c, 6.1).

        The kernel does this to the text of every entry, replaced or not. A 90 inside another instruction is no nop.
        """
        # A single nop stays as it is, so that nearly all code is given back at once.
        if b"\x90\x90" not in code:
            return code
        if code not in self._done:
            self._done[code] = self._optimize(code)
        return self._done[code]

    def _optimize(self, code: bytes) -> bytes:
        result = bytearray(code)
        position = run = 0
        for size in (*self.lengths(code), 0):
            # Only one-byte nops are joined in these kernels; a longer one ends the run.
            if size == 1 and code[position] == NOP:
                position += 1
                continue
            if position - run > 1:
                result[run:position] = self.nops(position - run)
            position += size
            run = position
        return bytes(result)


@attrs.frozen(eq=False)
class Relocating:
    """The way since 6.5: every branch and every rip-relative operand is relocated, and nops of any length are joined.

    A run that is longer than the longest nop begins with a jump over the rest of it, which is filled with int3.

    Attributes:
        nops: the kernel's nops.
        bits: 32 or 64, the mode that its code runs in.
        absorbs: a jump to the end of the nops behind it becomes one of them, as from 6.5 to 6.9.
    """

    nops: NopTable
    bits: int
    absorbs: bool = False
    _known: dict[bytes, tuple[Encoding, ...]] = attrs.field(factory=dict, init=False, repr=False)

    def fill(self, code: bytes, source: int, destination: int, length: int) -> bytes:
        """A replacement as it is written; see :meth:`Rewriting.fill`.

        Raises:
            PatchError: a branch of a byte that would have to lead further.
        """
        padded = code + bytes([NOP]) * (length - len(code))
        instructions = self._instructions(padded)
        # Where there are nops alone nothing can be relative.
        if not all(each.nop for each in instructions):
            moved = relocate_code(padded, len(code), source, destination, instructions)
            # Moved code may be shorter (a jump of two bytes and int3), so it is decoded anew.
            if moved != padded:
                padded, instructions = moved, encodings(moved, self.bits)
        return self._joined(padded, instructions)

    def optimize(self, code: bytes) -> bytes:
        """Code that stays where it is, its nops joined."""
        return self._joined(code, self._instructions(code))

    def _instructions(self, code: bytes) -> tuple[Encoding, ...]:
        if code not in self._known:
            self._known[code] = encodings(code, self.bits)
        return self._known[code]

    def _joined(self, code: bytes, instructions: Iterable[Encoding]) -> bytes:
        result = bytearray(code)
        position = run = 0
        jump, target = 0, -1
        for each in (*instructions, None):
            if each is not None and each.nop:
                position += each.size
                continue
            # 6.5 to 6.9: a jump to right behind the nops is one more of them.
            if self.absorbs and run < position == target:
                run = jump
            result[run:position] = self._nops(position - run)
            if each is not None:
                jump, target = position, _jump_target(code, position, each.size)
                position += each.size
            run = position
        return bytes(result)

    def _nops(self, length: int) -> bytes:
        # Beyond the longest nop ``add_nop`` jumps over int3 instead.
        if length <= len(self.nops.sequences):
            return self.nops(length)
        short = length < 128
        size = 2 if short else 5
        jump = bytes([_JUMP_SHORT if short else _JUMP]) + (length - size).to_bytes(size - 1, "little")
        return jump.ljust(length, bytes([_INT3]))


def _jump_target(code: bytes, at: int, size: int) -> int:
    """Where an unconditional jump leads in some code; -1 for any other instruction."""
    if code[at] not in {_JUMP_SHORT, _JUMP}:
        return -1
    return at + size + int.from_bytes(code[at + 1 : at + size], "little", signed=True)


def kernel_padding(image: KernelImage, *, direct: bool = False) -> Rewriting:
    """The way of a kernel of 5.13 or later, told from its symbols.

    Args:
        image: the kernel.
        direct: whether its calls of ops are ALTERNATIVEs, which is younger than the second way.
    """
    nops, bits = kernel_nops(image), 8 * image.pointer_size
    # A direct call is relocated by any kernel that has them (6.8).
    if direct or any(name in image.symbols for name in RELOCATES):
        return Relocating(nops, bits, absorbs=any(name in image.symbols for name in ABSORBS))
    return Padding(nops, partial(instruction_lengths, bits=bits))


def old_padding(image: KernelImage, cpu: CpuIdentity) -> Padding:
    """The way of a kernel before 5.13 on a processor."""
    return Padding(nops_of_age(image, cpu), partial(instruction_lengths, bits=8 * image.pointer_size))
