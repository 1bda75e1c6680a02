"""The nops that kernels fill patched sites up with, by CPU kind and generation.

Sources: ``GENERIC_NOP1`` … ``K7_NOP8`` of include/asm-i386/processor.h (2.6.23), ``P6_NOP1`` … of 32c464f5d97 (2.6.24),
and ``BYTES_NOP1`` … of arch/x86/include/asm/nops.h since 5.13, which has one table for each word size.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import ImageError
from pvops_core.machine.cpu.model.identity import AMD, HYGON, INTEL, CpuIdentity
from pvops_core.patching.code.disasm import listing

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

KERNEL_TABLE: Final = "x86_nops"
"""Symbol of the kernel's own table since 5.13: pointers to the nop of 0, 1, 2 … bytes."""

IDEAL: Final = "arch_init_ideal_nops"
USUAL: Final = CpuIdentity()
"""The processor that the machine shows."""
# P6's and K7's family is 6, P4's and K8's is 15 (Intel SDM volume 2, CPUID; AMD's CPUID specification)
_P3, _P4, _K7, _K8 = 6, 15, 6, 15
# ``arch_init_ideal_nops``: models 0FH to 2FH, without the Atoms 1CH, 26H and 27H
_QUIRKY: Final = frozenset(range(0x0F, 0x30)) - {0x1C, 0x26, 0x27}
_VENDORS: Final = {AMD: 2, HYGON: 9}
"""X86_VENDOR_* (asm/processor.h)."""
_MOST_CODE: Final = 256
_LONGEST: Final = 15
"""An x86 instruction has at most 15 bytes."""


class NopKind(enum.Enum):
    """Which table a kernel uses."""

    GENERIC = "generic"
    """i386 before 5.13 on CPUs that are neither K7 nor K8, and 2.6.23's Intel."""
    K8 = "k8"
    """Repeated 66 prefixes; every x86_64 CPU in 2.6.23."""
    K7 = "k7"
    """AMD Athlon."""
    P6 = "p6"
    """The 0f 1f form: Intel from 2.6.24 on."""
    MODERN_64 = "x86_64"
    """Any x86_64 CPU since 5.13."""
    MODERN_32 = "i386"
    """Any i386 CPU since 5.13."""


@attrs.frozen
class NopTable:
    """Nops of 1, 2, 3 … bytes; called with a length it gives that many bytes, the longest ones first (``add_nops``).

    Attributes:
        sequences: the nop of each length, from 1 on.
    """

    sequences: tuple[bytes, ...] = attrs.field()

    @sequences.validator
    def _lengths(self, _attribute: attrs.Attribute[tuple[bytes, ...]], value: tuple[bytes, ...]) -> None:
        if not value or any(len(code) != size for size, code in enumerate(value, 1)):
            raise ValueError("a nop table needs the nops of 1, 2, 3 … bytes in order")

    def __call__(self, length: int) -> bytes:
        """``length`` bytes of nops, none for 0."""
        longest = len(self.sequences)
        # add_nops takes the longest as often as it fits, then the one that is left.
        whole, rest = divmod(length, longest)
        return self.sequences[-1] * whole + (self.sequences[rest - 1] if rest else b"")


def _table(*codes: str) -> NopTable:
    return NopTable(tuple(bytes.fromhex(code) for code in codes))


NOPS: Final[Mapping[NopKind, NopTable]] = MappingProxyType(
    {
        NopKind.GENERIC: _table(
            "90",
            "89 f6",  # mov esi, esi
            "8d 76 00",  # lea esi, [esi + disp8]
            "8d 74 26 00",  # the same with a SIB byte
            "90 8d 74 26 00",
            "8d b6 00 00 00 00",  # lea esi, [esi + disp32]
            "8d b4 26 00 00 00 00",
            "90 8d b4 26 00 00 00 00",
        ),
        NopKind.K8: _table(
            "90",
            "66 90",
            "66 66 90",
            "66 66 66 90",
            "66 66 90 66 90",
            "66 66 90 66 66 90",
            "66 66 66 90 66 66 90",
            "66 66 66 90 66 66 66 90",
        ),
        NopKind.K7: _table(
            "90",
            "8b c0",  # mov eax, eax
            "8d 04 20",  # lea eax, [eax]
            "8d 44 20 00",
            "8d 44 20 00 90",
            "8d 80 00 00 00 00",
            "8d 04 05 00 00 00 00",
            "8d 04 05 00 00 00 00 90",
        ),
        NopKind.P6: _table(
            "90",
            "66 90",
            "0f 1f 00",  # nop dword [eax]
            "0f 1f 40 00",
            "0f 1f 44 00 00",
            "66 0f 1f 44 00 00",
            "0f 1f 80 00 00 00 00",
            "0f 1f 84 00 00 00 00 00",
        ),
        NopKind.MODERN_64: _table(
            "90",
            "66 90",
            "0f 1f 00",
            "0f 1f 40 00",
            "0f 1f 44 00 00",
            "66 0f 1f 44 00 00",
            "0f 1f 80 00 00 00 00",
            "0f 1f 84 00 00 00 00 00",
        ),
        NopKind.MODERN_32: _table(
            "90",
            "89 f6",
            "8d 76 00",
            "8d 74 26 00",
            "3e 8d 74 26 00",  # with a ds prefix in place of a second instruction
            "8d b6 00 00 00 00",
            "8d b4 26 00 00 00 00",
            "3e 8d b4 26 00 00 00 00",
        ),
    }
)
"""The tables as the headers have them."""


def nops_of_age(image: KernelImage, cpu: CpuIdentity = USUAL) -> NopTable:
    """The nops of a kernel before 5.13 on a processor.

    ``find_nop_table`` of arch/x86/kernel/alternative.c to 2.6.39, ``arch_init_ideal_nops`` after it. 2.6.23 has no long
    nops; to 2.6.26 Intel's 32-bit processors of family 6 and 15 get them (``noptypes``); later 32-bit kernels take them
    for missing.
    """
    # A kernel that has the long nops anywhere may use them; 2.6.23 has not got them.
    wide, has_long = image.pointer_size == 8, b"".join(NOPS[NopKind.P6].sequences) in image.data
    intel = cpu.vendor == INTEL
    if IDEAL in image.symbols:
        return NOPS[_ideal(image, cpu, wide=wide)]
    if wide:
        return NOPS[NopKind.P6 if has_long and intel and cpu.family >= _P3 else NopKind.K8]
    # 32-bit kernels of 2.6.24 ask for Intel's family in ``noptypes``' function.
    if has_long and intel and cpu.family in {_P3, _P4} and "noptypes" in image.symbols:
        return NOPS[NopKind.P6]
    return NOPS[_tuned(cpu)]


def _tuned(cpu: CpuIdentity) -> NopKind:
    """What ``init_amd`` marks AMD's processors as: X86_FEATURE_K7 or K8."""
    # init_amd's own rule; other vendors' processors are marked as neither.
    if cpu.vendor != AMD or cpu.family < _K7:
        return NopKind.GENERIC
    return NopKind.K7 if cpu.family < _K8 else NopKind.K8


def _ideal(image: KernelImage, cpu: CpuIdentity, *, wide: bool) -> NopKind:
    """``arch_init_ideal_nops``: Intel's models 15 to 47 but for Atoms do better with those of K8."""
    if cpu.vendor == INTEL:
        # The manual's nops are slower there, for a quirk of their decoder (arch_init_ideal_nops).
        if cpu.family == _P3 and cpu.model in _QUIRKY:
            return NopKind.K8
        return NopKind.P6 if wide and cpu.family >= _P3 else NopKind.GENERIC
    # Later kernels ask for two more vendors (4.4, 4.20).
    newer = cpu.vendor == HYGON or (cpu.vendor == AMD and cpu.family > _K8)
    if newer and _VENDORS[cpu.vendor] in _compared(image):
        return NopKind.P6
    return NopKind.K8 if wide else _tuned(cpu)


def _compared(image: KernelImage) -> frozenset[int]:
    """Numbers that the function compares something with."""
    start = image.symbols[IDEAL]
    # Up to the next symbol; the function is short, and its comparisons come first.
    length = next((size for size in range(1, _MOST_CODE) if (image.symbol_at(start + size) or ("", 0))[1] == 0), 0)
    try:
        texts = [text for _, _, text in listing(image.read(start, length or _MOST_CODE), start, 8 * image.pointer_size)]
    except ImageError:
        return frozenset()
    found = (text.rpartition(", ")[2] for text in texts if text.startswith("cmp "))
    # A register as the last operand is no number.
    return frozenset(int(number, 0) for number in found if number.removeprefix("0x").isalnum() and number[0].isdigit())


def kernel_nops(image: KernelImage) -> NopTable:
    """The nops of a 5.13 or later kernel: its own table where its symbols name it, else the header's for its word size.

    Args:
        image: the kernel.
    """
    fallback = NOPS[NopKind.MODERN_64 if image.pointer_size == 8 else NopKind.MODERN_32]
    table = image.symbols.get(KERNEL_TABLE)
    if table is None:
        return fallback
    codes: list[bytes] = []
    try:
        # The nops lie one behind the other; a pointer to anywhere else belongs to the variable behind the table.
        pointers = image.pointers(table, _LONGEST + 1)
        for size in range(1, _LONGEST + 1):
            # Each nop begins where the one before ends: that they are longer by a byte each is what the table is.
            if size > 1 and pointers[size] != pointers[size - 1] + size - 1:
                break
            codes.append(image.read(pointers[size], size))
    except ImageError:
        return fallback
    return NopTable(tuple(codes))
