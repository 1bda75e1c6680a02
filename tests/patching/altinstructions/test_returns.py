"""Returns and indirect branches, as the kernel leaves them before alternatives."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pvops_core.images import load_image
from pvops_core.patching.altinstructions import returns
from pvops_core.patching.altinstructions.capabilities import (
    CALL_DEPTH,
    RETHUNK,
    RETPOLINE,
    RETPOLINE_LFENCE,
    SRSO,
    UNRET,
)
from pvops_core.patching.altinstructions.returns import THUNK_SIZE, apply_retpolines, apply_returns
from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.patching.code.padding import Relocating
from pvops_core.patching.text import Text
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

TEXT = 0xFFFFFFFF81000000
THUNKS, RETURN, OTHERS, ITS = TEXT + 0x1000, TEXT + 0x1800, TEXT + 0x1900, TEXT + 0x1A00
WAY = Relocating(NOPS[NopKind.MODERN_64], 64)


def image(section: str, code: bytes, at: list[int]) -> KernelImage:
    builder = ElfBuilder()
    builder.text(".text", code.ljust(0x2000, b"\xcc"), address=TEXT)
    start = TEXT + 0x3000
    words = b"".join(struct.pack("<i", TEXT + place - start - 4 * index) for index, place in enumerate(at))
    builder.section(section, words, address=start)
    builder.symbol("__x86_return_thunk", RETURN)
    builder.symbol("__x86_indirect_thunk_array", THUNKS)
    builder.symbol("retbleed_return_thunk", OTHERS)
    builder.symbol("srso_return_thunk", OTHERS + 16)
    builder.symbol("its_return_thunk", ITS)
    return load_image(builder.build())


def branch(opcode: str, target: int, at: int) -> bytes:
    code = bytes.fromhex(opcode)
    return code + struct.pack("<i", target - TEXT - at - len(code) - 4)


@pytest.mark.parametrize(
    ("features", "target"),
    [
        (frozenset(), None),
        ({RETHUNK}, RETURN),
        ({RETHUNK, UNRET}, OTHERS),
        ({RETHUNK, UNRET, SRSO}, OTHERS + 16),
        ({RETHUNK, CALL_DEPTH}, RETURN),  # the kernel has no such thunk
    ],
)
def test_returns_are_led_to_the_thunk_of_the_cpu(features: set[int], target: int | None) -> None:
    code = b"\x90" * 3 + branch("e9", RETURN, 3) + branch("e9", OTHERS, 8) + b"\xc3" * 5
    kernel = image(".return_sites", code, [3, 8, 13, 0x100000])
    text = Text(kernel)
    changed = apply_returns(kernel, text, frozenset(features))
    made = bytes.fromhex("c3 cc cc cc cc") if target is None else branch("e9", target, 3)
    assert text.read(TEXT, 18) == code[:3] + made + code[8:18]
    assert changed == (target != RETURN)


def test_with_the_bug_its_returns_in_the_safe_half_of_a_line_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returns, "feature_names", lambda _image: {700: "bug:its"})
    code = branch("e9", RETURN, 0).ljust(0x20, b"\x90") + branch("e9", RETURN, 0x20)
    kernel = image(".return_sites", code, [0, 0x20])
    text = Text(kernel)
    assert apply_returns(kernel, text, frozenset({RETHUNK, 700})) == 2
    assert text.read(TEXT, 5) == branch("e9", ITS, 0)
    assert text.read(TEXT + 0x20, 5) == bytes.fromhex("c3 cc cc cc cc")
    needing = [{RETHUNK, 700}, {RETHUNK, 700, RETPOLINE, RETPOLINE_LFENCE}]
    assert all(returns.needs_trampolines(kernel, frozenset(features)) for features in needing)
    content = [{RETHUNK, 700, RETPOLINE}, {700}, {RETHUNK}]
    assert not any(returns.needs_trampolines(kernel, frozenset(features)) for features in content)


@pytest.mark.parametrize(
    ("opcode", "register", "lfence", "made"),
    [
        ("e8", 0, False, "ff d0 0f 1f 00"),
        ("e8", 0, True, "0f ae e8 ff d0"),
        ("2e e8", 8, False, "41 ff d0 0f 1f 00"),
        ("2e e8", 8, True, "0f ae e8 41 ff d0"),
        ("e9", 3, False, "ff e3 cc 66 90"),
        ("e9", 3, True, "0f ae e8 ff e3"),
        ("2e e9", 15, False, "41 ff e7 cc 66 90"),
        ("0f 84", 2, False, "75 04 ff e2 cc 90"),  # jz thunk: jnz over jmp *rdx
        ("0f 85", 9, False, "74 04 41 ff e1 cc"),
    ],
)
def test_indirect_branches_where_the_cpu_needs_no_retpolines(
    opcode: str, register: int, made: str, *, lfence: bool
) -> None:
    code = branch(opcode, THUNKS + THUNK_SIZE * register, 0)
    kernel = image(".retpoline_sites", code + b"\xc3", [0])
    text = Text(kernel)
    features = frozenset({RETPOLINE, RETPOLINE_LFENCE} if lfence else ())
    assert apply_retpolines(kernel, text, features, WAY) == 1
    assert text.read(TEXT, len(code) + 1) == bytes.fromhex(made) + b"\xc3"


def test_retpolines_stay_where_they_are_needed() -> None:
    code = branch("e8", THUNKS, 0)
    kernel = image(".retpoline_sites", code, [0])
    text = Text(kernel)
    assert apply_retpolines(kernel, text, frozenset({RETPOLINE}), WAY) == 0
    assert text.read(TEXT, 5) == code


@pytest.mark.parametrize("code", [b"\x90" * 8, branch("e8", THUNKS + 3, 0), branch("e8", THUNKS - THUNK_SIZE, 0)])
def test_what_is_no_branch_to_a_thunk_is_left(code: bytes) -> None:
    kernel = image(".retpoline_sites", code, [0, 0x1FFD])
    text = Text(kernel)
    assert apply_retpolines(kernel, text, frozenset(), WAY) == 0
    assert text.read(TEXT, 0x2000) == code.ljust(0x2000, b"\xcc")
