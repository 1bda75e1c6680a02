"""A booted Linux's variables and structures, for ops that serve it."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING, Final

from pvops_core.errors import StructureError
from pvops_core.guest import find_symbol
from pvops_core.patching.altinstructions.capabilities import capability_words, feature_names

if TYPE_CHECKING:
    from pvops_core.guest import GuestText
    from pvops_core.guest.space import KernelSpace
    from pvops_core.guest.types.structs import Structures
    from pvops_core.guests.linux.kernel import Kernel
    from pvops_core.machine import Machine, Vcpu

_OFFSETS: Final = "__per_cpu_offset"


class LinuxNames:
    """Those of one session's kernel.

    Args:
        kernel: the kernel.
        machine: the machine that it runs on.
        text: its image in that.
        space: its address space.
        structures: gives its structures by its type information.
        function: names the function that it has for an op now.
    """

    own_functions = True

    def __init__(
        self,
        kernel: Kernel,
        machine: Machine,
        text: GuestText,
        space: KernelSpace,
        structures: Callable[[], Structures],
        function: Callable[[str], str],
    ) -> None:
        self._kernel = kernel
        self._space = space
        self._structures = structures
        self.function = function
        self._per_cpu: dict[str, int] = {}
        self._memory = machine.memory
        self._text = text
        self._mask = (1 << machine.kind.bits) - 1
        self._size = kernel.image.pointer_size
        self.member: Callable[[str, str], int] = cache(lambda *member: structures().offset(*member))

    @property
    def _symbols(self) -> Mapping[str, int]:
        return self._kernel.symbols

    def __contains__(self, symbol: object) -> bool:
        """Whether the kernel has a symbol."""
        return symbol in self._symbols

    def address(self, symbol: str) -> int:
        """Address of a symbol; UsageError if there is none."""
        found = self._symbols.get(symbol)
        return find_symbol(self._kernel.image, symbol) if found is None else found

    def end(self, symbol: str) -> int:
        """By the order of its symbols; UsageError if there is none."""
        return self._ordered[bisect_right(self._ordered, self.address(symbol))]

    @cached_property
    def _ordered(self) -> list[int]:
        return sorted({*self._symbols.values(), (1 << 64) - 1})

    def per_cpu(self, symbol: str, cpu: Vcpu) -> int:
        """The symbol moved by ``__per_cpu_offset``, which is read anew each time: it changes during boot."""
        known = self._per_cpu.get(symbol)
        if known is None:
            known = self._per_cpu[symbol] = self.address(symbol)
        # The sum wraps around, as the kernel's own does.
        return known + self._offset(cpu.index) & self._mask

    @cached_property
    def _offset(self) -> Callable[[int], int]:
        """Reads ``__per_cpu_offset``; 0 in a kernel for one processor."""
        symbol, size = self._symbols.get(_OFFSETS), self._size
        if symbol is None:
            return lambda _cpu: 0
        place, read = self._text.machine_address(symbol), self._memory.u64 if size == 8 else self._memory.u32
        return lambda cpu: read(place + cpu * size)

    def size(self, type: str) -> int:
        """By its type information."""
        types = self._structures().types
        return types.size(types.find(type))

    def enumerator(self, enumeration: str, name: str) -> int:
        """By its type information."""
        types = self._structures().types
        number = types.resolved(types.find(f"enum {enumeration}"))
        for value, known in types.enumerators(number).items():
            if known == name:
                return value
        raise StructureError("has no such enumerator", type=enumeration, member=name)

    def place(self, va: int) -> int:
        """As its page tables say now."""
        return self._space.walk(va).pa

    def has(self, feature: str) -> bool:
        """As ``boot_cpu_data`` says now."""
        place = self._feature(feature)
        if place is None:
            return False
        word, bit = place
        return bool(struct.unpack("<I", self._text.read(word, 4))[0] >> bit & 1)

    def knows(self, feature: str) -> bool:
        """By its list of names."""
        return feature in self._numbers

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in feature_names(self._kernel.image).items()}

    def _feature(self, name: str) -> tuple[int, int] | None:
        """Address of its word, and its bit there; None where the kernel knows no such feature."""
        number, words = self._numbers.get(name), capability_words(self._kernel.image)
        if number is None or words is None or "boot_cpu_data" not in self._symbols:
            return None
        # x86_capability of struct cpuinfo_x86 is an array of words of 32 bits.
        return self._symbols["boot_cpu_data"] + words[0] + number // 32 * 4, number % 32
