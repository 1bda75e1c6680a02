"""Places of a run, as a user writes them."""

from __future__ import annotations

import pytest

from pvops_core.errors import UsageError
from pvops_core.guest.places import TextPlace, find_place
from pvops_core.images import KernelImage, load_image
from pvops_core.images.elfwriter import ALLOC
from pvops_core.testing.images import ElfBuilder

TEXT = 0xFFFFFFFF81000000
DATA = TEXT + 0x10000


@pytest.fixture(scope="module")
def image() -> KernelImage:
    builder = ElfBuilder(base=TEXT)
    builder.text(".text", bytes(0x100), address=TEXT)
    builder.section(".data", bytes(0x100), flags=ALLOC | 1, address=DATA)
    for name, address in {"show": TEXT + 0x20, "show+8": TEXT + 0x60, "table": DATA}.items():
        builder.symbol(name, address)
    return load_image(builder.build())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("show", TextPlace(TEXT + 0x20)),
        ("show+0x10", TextPlace(TEXT + 0x30)),
        ("show+10", TextPlace(TEXT + 0x2A)),
        ("show,1+4", TextPlace(TEXT + 0x24)),
        ("show+8", TextPlace(TEXT + 0x60)),
        ("0xffffffff81000001", TextPlace(TEXT + 1)),
        ("0xFFFFFFFF81000001", TextPlace(TEXT + 1)),
        ("1500ns", TextPlace(ns=1500)),
        ("20us", TextPlace(ns=20_000)),
        ("1.5ms", TextPlace(ns=1_500_000)),
        ("2s", TextPlace(ns=2_000_000_000)),
    ],
)
def test_a_place_is_an_instruction_or_a_time(image: KernelImage, text: str, place: TextPlace) -> None:
    assert find_place(image, text) == place


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shows", "did you mean show"),
        ("shew+0x10", "no symbol 'shew'"),
        ("show+0x1000", "no instruction at show\\+0x1000: none of its sections"),
        ("table+4", "section .data is no text"),
        ("0x10", "no instruction at 0x10"),
        ("5 ms", "no symbol"),
        ("-1ms", "no symbol"),
        ("0.0000000019s", "no symbol"),
        ("", "no symbol"),
        ("show+", "no symbol"),
    ],
)
def test_what_is_none_is_named(image: KernelImage, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_place(image, text)
