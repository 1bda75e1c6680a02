"""A hook that is moved: its bounds and data are changed in the library's structure, and no other's."""

from __future__ import annotations

import ctypes
import struct

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine.unicorn.movablehook import MovableHook

NOWHERE = (1 << 64) - 1


class Structure:
    """What a library might keep of a hook: the values in some order, with other things around them."""

    def __init__(self, places: tuple[int, int, int], twice: int = 0) -> None:
        self.bytes = ctypes.create_string_buffer(b"\x5a" * 72, 72)
        self.places, self.twice = places, twice

    def add(self, *values: int) -> int:
        for at, value in zip(self.places, values, strict=True):
            struct.pack_into("<Q", self.bytes, at, value)
        if self.twice:
            struct.pack_into("<Q", self.bytes, self.twice, values[0])
        return ctypes.addressof(self.bytes)

    def seen(self) -> tuple[int, ...]:
        return tuple(struct.unpack_from("<Q", self.bytes, at)[0] for at in self.places)


@pytest.mark.parametrize("places", [(0, 8, 16), (64, 56, 48), (24, 0, 40)])
def test_wherever_the_library_keeps_them(places: tuple[int, int, int]) -> None:
    structure = Structure(places)
    hook = MovableHook(structure.add)
    assert structure.seen() == (NOWHERE, NOWHERE, 0)
    hook.move(0x1000, 0x1FFF, 7)
    assert structure.seen() == (0x1000, 0x1FFF, 7)
    hook.rest()
    assert structure.seen() == (NOWHERE, NOWHERE, 0)
    others = set(range(72)) - {at + byte for at in places for byte in range(8)}
    assert {structure.bytes.raw[at] for at in others} == {0x5A}


def test_a_structure_of_another_kind_is_refused() -> None:
    for structure in (Structure((0, 8, 16), twice=24), Structure((1, 17, 33))):
        with pytest.raises(MachineError, match="not one that pvops knows"):
            MovableHook(structure.add)
