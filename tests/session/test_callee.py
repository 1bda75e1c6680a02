"""What is called, with arguments where its convention wants them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.session.callee import Callee

ORDER = {64: ("rdi", "rsi", "rdx", "rcx", "r8", "r9"), 32: ("eax", "edx", "ecx")}


@pytest.mark.parametrize("bits", [32, 64])
@given(arguments=st.lists(st.integers(-(1 << 63), (1 << 64) - 1), max_size=10))
def test_words_go_into_registers_in_order_and_the_rest_onto_the_stack(bits: int, arguments: list[int]) -> None:
    callee = Callee.function("f", 0x1000, bits, *arguments)
    words = [argument % (1 << bits) for argument in arguments]
    assert list(callee.registers.values()) == words[: len(ORDER[bits])]
    assert tuple(callee.registers) == ORDER[bits][: len(arguments)]
    assert list(callee.stack) == words[len(ORDER[bits]) :]
    assert set(callee.registers) <= callee.lost(bits)
