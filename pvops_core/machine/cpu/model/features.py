"""Which processor features cpuid tells a guest of: one table for bare metal and for platforms that hide or add some.

Source of the places: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

PLACES: Final = {
    # leaf 1, EDX
    "fpu": (1, "edx", 0),
    "de": (1, "edx", 2),
    "pse": (1, "edx", 3),
    "tsc": (1, "edx", 4),
    "msr": (1, "edx", 5),
    "pae": (1, "edx", 6),
    "cx8": (1, "edx", 8),
    "apic": (1, "edx", 9),
    "sep": (1, "edx", 11),
    "pge": (1, "edx", 13),
    "cmov": (1, "edx", 15),
    "pat": (1, "edx", 16),
    "clflush": (1, "edx", 19),
    "mmx": (1, "edx", 23),
    "fxsr": (1, "edx", 24),
    "sse": (1, "edx", 25),
    "sse2": (1, "edx", 26),
    # leaf 1, ECX
    "sse3": (1, "ecx", 0),
    "pclmulqdq": (1, "ecx", 1),
    "ssse3": (1, "ecx", 9),
    "cx16": (1, "ecx", 13),
    "sse4_1": (1, "ecx", 19),
    "sse4_2": (1, "ecx", 20),
    "popcnt": (1, "ecx", 23),
    "aes": (1, "ecx", 25),
    "hypervisor": (1, "ecx", 31),
    # leaf 0x80000001
    "syscall": (0x80000001, "edx", 11),
    "nx": (0x80000001, "edx", 20),
    "rdtscp": (0x80000001, "edx", 27),
    "lm": (0x80000001, "edx", 29),
    "lahf": (0x80000001, "ecx", 0),
}
"""Feature, by the kernel's name for it (arch/x86/include/asm/cpufeatures.h; ``hypervisor`` and ``lahf`` apart) -> leaf,
register, bit."""

ENGINE: Final = frozenset(PLACES) - {"apic"}
"""What the engine really does, and all that it may be said to do. The APIC is a platform's: what has one adds it."""

LONG_MODE: Final = frozenset({"syscall", "lm"})
"""Features that only a 64-bit machine has."""


def word(names: Collection[str], leaf: int, register: str) -> int:
    """The value of a register of a leaf for a processor with these features."""
    places = (PLACES[name] for name in names)
    return sum(1 << bit for where, which, bit in places if (where, which) == (leaf, register))
