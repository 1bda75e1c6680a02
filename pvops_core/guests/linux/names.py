"""A booted Linux's variables and structures, for ops that serve it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING, Final

from pvops_core.guest import find_symbol
from pvops_core.patching.altinstructions.capabilities import capability_words, feature_names

if TYPE_CHECKING:
    from pvops_core.guest import GuestText
    from pvops_core.guest.structs import Structures
    from pvops_core.guests.linux.kernel import Kernel
    from pvops_core.machine import Machine, Vcpu

_OFFSETS: Final = "__per_cpu_offset"


class LinuxNames:
    """Those of one session's kernel.

    Args:
        kernel: the kernel.
        machine: the machine that it runs on.
        text: its image in that.
        structures: gives its structures by its type information.
    """

    own_functions = True

    def __init__(self, kernel: Kernel, machine: Machine, text: GuestText, structures: Callable[[], Structures]) -> None:
        self._kernel = kernel
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

    def per_cpu(self, symbol: str, cpu: Vcpu) -> int:
        """The symbol moved by ``__per_cpu_offset``, which is read anew each time: it changes during boot."""
        if self._offsets is None:
            return self.address(symbol)
        offset = self._memory.read(self._offsets + cpu.index * self._size, self._size)
        return self.address(symbol) + int.from_bytes(offset, "little") & self._mask

    @cached_property
    def _offsets(self) -> int | None:
        """Physical address of ``__per_cpu_offset``; None in a kernel for one processor."""
        symbol = self._symbols.get(_OFFSETS)
        return None if symbol is None else self._text.machine_address(symbol)

    def has(self, feature: str) -> bool:
        """As ``boot_cpu_data`` says now."""
        place = self._feature(feature)
        if place is None:
            return False
        word, bit = place
        return bool(struct.unpack("<I", self._text.read(word, 4))[0] >> bit & 1)

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in feature_names(self._kernel.image).items()}

    def _feature(self, name: str) -> tuple[int, int] | None:
        """Address of its word, and its bit there; None where the kernel knows no such feature."""
        number, words = self._numbers.get(name), capability_words(self._kernel.image)
        if number is None or words is None or "boot_cpu_data" not in self._symbols:
            return None
        return self._symbols["boot_cpu_data"] + words[0] + number // 32 * 4, number % 32
