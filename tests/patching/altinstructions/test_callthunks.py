"""Call thunks in a text of a few functions."""

from __future__ import annotations

import struct

import pytest

from pvops_core.images import KernelImage, load_image
from pvops_core.patching.altinstructions.callthunks import (
    apply_call_thunks,
    before_alternatives,
    takes_call_thunks,
)
from pvops_core.patching.altinstructions.capabilities import CALL_DEPTH
from pvops_core.patching.text import Text
from pvops_core.testing.images import ElfBuilder

BASE = 0xFFFFFFFF81000000
PADDED, BARE, SWITCH, RELOCATE, OUTSIDE, CALLS, WHOLE, STEP, ALTERNATIVES = (BASE + 0x40 * n for n in range(1, 10))
SIZE = 9


def call(at: int, to: int) -> bytes:
    return b"\xe8" + struct.pack("<i", to - at - 5)


def kernel(targets: list[int], *, listed: int, steps: tuple[int, ...] = (STEP, ALTERNATIVES)) -> KernelImage:
    """Calls one behind the other, of which the first few are listed; the outermost text is not the kernel's core."""
    text = bytearray(b"\xcc" * 0x300)
    for function in (PADDED, SWITCH, RELOCATE, OUTSIDE):
        text[function - BASE - 16 : function - BASE + 1] = b"\x90" * 16 + b"\xc3"
    for start, places in ((CALLS, targets), (WHOLE, steps)):
        for number, target in enumerate(places):
            at = start + 5 * number
            text[at - BASE : at - BASE + 5] = call(at, target) if target else b"\xff\xd0\x90\x90\x90"
    builder = ElfBuilder(base=BASE)
    builder.text(".text", bytes(text))
    start = BASE + 0x1000
    distances = [CALLS + 5 * number - start - 4 * number for number in range(listed)]
    builder.section(".call_sites", struct.pack(f"<{listed}i", *distances), address=start)
    names = {
        "callthunks_patch_builtin_calls": STEP,
        "apply_alternatives": ALTERNATIVES,
        "alternative_instructions": WHOLE,
        "__switch_to_asm": SWITCH,
        "relocate_kernel": RELOCATE - 8,
        "skl_call_thunk_template": start + 0x100,
        "skl_call_thunk_tail": start + 0x100 + SIZE,
        "_text": BASE,
        "_etext": BASE + 0x280,
    }
    for name, at in names.items():
        builder.symbol(name, at)
    return load_image(builder.build())


def test_calls_of_padded_functions_begin_with_their_thunks() -> None:
    targets = [PADDED, BARE, SWITCH, RELOCATE, 0, PADDED, PADDED]
    image = kernel(targets, listed=6)
    assert takes_call_thunks(image, frozenset({CALL_DEPTH}))
    assert not takes_call_thunks(image, frozenset())
    text = Text(image)
    assert apply_call_thunks(image, text, [CALLS + 30, CALLS + 30, BASE + 0x290]) == 3
    expected = [PADDED - SIZE, BARE, SWITCH, RELOCATE, 0, PADDED - SIZE, PADDED - SIZE]
    for number, target in enumerate(expected):
        at = CALLS + 5 * number
        assert text.read(at, 5) == (call(at, target) if target else b"\xff\xd0\x90\x90\x90")
    assert apply_call_thunks(image, text, ()) == 0


@pytest.mark.parametrize(
    ("steps", "early"),
    [
        ((STEP, ALTERNATIVES), True),
        ((0, ALTERNATIVES, STEP), False),
        ((STEP,), False),
        ((ALTERNATIVES,), False),
        ((), False),
    ],
)
def test_the_order_is_that_of_the_kernels_code(steps: tuple[int, ...], *, early: bool) -> None:
    assert before_alternatives(kernel([], listed=0, steps=steps)) is early


def test_a_kernel_that_does_not_say_takes_none() -> None:
    image = kernel([PADDED], listed=1)
    image.symbols["alternative_instructions"] = BASE - 0x1000
    assert not before_alternatives(image)
    del image.symbols["alternative_instructions"]
    assert not before_alternatives(image)
    image.symbols["skl_call_thunk_tail"] = image.symbols["skl_call_thunk_template"]
    assert not takes_call_thunks(image, frozenset({CALL_DEPTH}))
