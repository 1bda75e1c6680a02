"""The operand of a call through a slot."""

from __future__ import annotations

import pytest

from pvops_core.patching.sites import slot_operand


@pytest.mark.parametrize(
    ("code", "pointer", "slot"),
    [
        ("ff 15 10 00 00 00", 8, 0x1016),
        ("ff 15 f0 ff ff ff", 8, 0x0FF6),
        ("ff 15 78 56 34 c1", 4, 0xC1345678),
        ("51 52 ff 15 78 56 34 c1 5a 59", 4, 0xC1345678),  # the 10-byte shape of 2.6
        ("50 51 52 2e ff 15 78 56 34 c1 5a 59 58", 4, 0xC1345678),  # 13 bytes, from assembly
        ("2e ff 25 78 56 34 c1", 4, 0xC1345678),  # jmp
        ("ff 14 25 78 56 34 81", 8, 0xFFFFFFFF81345678),  # absolute, early x86_64
        ("51 ff 50 08 59 90 90", 4, None),  # through a register
        ("e8 00 00 00 00 90", 8, None),
        ("ff 15 10 00", 8, None),
    ],
)
def test_slot_operand(code: str, pointer: int, slot: int | None) -> None:
    assert slot_operand(bytes.fromhex(code), 0x1000, pointer) == slot
