"""Functions by name, also where several have it."""

from __future__ import annotations

import pytest

from pvops_core.errors import UsageError
from pvops_core.guest.symbols import find_symbol, plain_name
from pvops_core.images import KernelImage, load_image
from pvops_core.images.elfwriter import ALLOC
from pvops_core.testing.images import ElfBuilder

TEXT = 0xFFFFFFFF81000000
DATA = TEXT + 0x10000
WRITE, EXECUTE = 1, 4


@pytest.fixture(scope="module")
def image() -> KernelImage:
    """Two functions called show, one of them global; one function and data called state; executable data (7.2)."""
    builder = ElfBuilder(base=TEXT)
    builder.text(".text", bytes(0x100), address=TEXT)
    builder.section(".data", bytes(0x100), flags=ALLOC | WRITE | EXECUTE, address=DATA)
    symbols = {"show": (TEXT + 0x20, TEXT + 0x10), "state": (DATA, TEXT + 0x30), "table": (DATA + 8, DATA + 16)}
    for name, addresses in symbols.items():
        for address in addresses:
            builder.symbol(name, address)
    builder.symbol("shown", TEXT + 0x40)
    return load_image(builder.build())


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("shown", TEXT + 0x40),
        ("show,1", TEXT + 0x10),
        ("show,2", TEXT + 0x20),
        (f"show@{TEXT + 0x20:#x}", TEXT + 0x20),
        (f"show@{TEXT + 0x10:X}", TEXT + 0x10),
        ("state", TEXT + 0x30),
        ("state,2", DATA),
        ("shown,1", TEXT + 0x40),
    ],
)
def test_a_name_that_says_which(image: KernelImage, name: str, address: int) -> None:
    assert find_symbol(image, name) == address
    assert find_symbol(image, "nothing", name) == address


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "show",
            r"2 functions are called 'show': show,1 at 0xffffffff81000010, show,2 at 0xffffffff81000020; say which",
        ),
        ("show,0", "there is no 0 of 2 called 'show'"),
        ("show,3", "there is no 3 of 2 called 'show'"),
        ("show@0x40", "none called 'show' is at 0x40: show,1"),
        ("state,3", r"state,2 at 0xffffffff81010000 \(data\)"),
        ("shon,1", "no symbol 'shon,1'"),
        ("show@", "no symbol 'show@'"),
        ("show,x", "no symbol 'show,x'"),
    ],
)
def test_a_name_that_does_not(image: KernelImage, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_symbol(image, name)


def test_two_variables_are_no_functions(image: KernelImage) -> None:
    assert find_symbol(image, "table") == image.symbols["table"]


@pytest.mark.parametrize(
    ("text", "plain"), [("show", "show"), ("show,2", "show"), ("show@ff", "show"), ("a.isra.0,12", "a.isra.0")]
)
def test_the_symbol_of_a_name(text: str, plain: str) -> None:
    assert plain_name(text) == plain
