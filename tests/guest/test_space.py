"""Where a kernel sees its memory, by the root that it is linked with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pvops_core.errors import ImageError
from pvops_core.guests import Kernel

if TYPE_CHECKING:
    from pvops_core.guest import GuestText
    from pvops_core.images import KernelImage

TEXT = cast("GuestText", SimpleNamespace(pointers=lambda _address, _count, _size: (0,)))


def kernel(*entries: int, symbol: str = "init_level4_pgt", size: int = 8) -> Kernel:
    words = [0] * 512
    for number in (0, *entries, 511):
        words[number] = 0x1000063
    image = SimpleNamespace(pointer_size=size, symbols={symbol: 0x1000}, pointers=lambda _address, count: words[:count])
    return Kernel(cast("KernelImage", image))


@pytest.mark.parametrize(
    ("made", "base"),
    [
        (kernel(258), 0xFFFF810000000000),
        (kernel(272), 0xFFFF880000000000),
        (kernel(273, symbol="init_top_pgt"), 0xFFFF888000000000),
        (kernel(), 0xFFFF888000000000),
        (kernel(272, symbol="other"), 0xFFFF888000000000),
        (kernel(272, size=4), 0xC0000000),
    ],
)
def test_a_kernel_says_where_it_maps_memory(made: Kernel, base: int) -> None:
    assert made.direct_map(TEXT) == base


def test_a_root_that_cannot_be_read_says_nothing() -> None:
    def pointers(_address: int, _count: int) -> tuple[int, ...]:
        raise ImageError("is in no segment")

    image = SimpleNamespace(pointer_size=8, symbols={"init_top_pgt": 1}, pointers=pointers)
    assert Kernel(cast("KernelImage", image)).direct_map(TEXT) == 0xFFFF888000000000
