"""The kernel's own rule: for one site, and for many at once."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, strategies
from hypothesis.strategies import integers, lists, sampled_from

from pvops_core.errors import PatchError
from pvops_core.ops import LAYOUTS
from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.patching.context import PatchContext
from pvops_core.patching.patchdefault import LONGEST_SITE, patch_default, patch_site, patch_sites

BASE, NOP, BUG = 0xFFFFFFFF81000000, 0xFFFFFFFF81000100, 0xFFFFFFFF81000200
NEAR = BASE + 0x300000
nops = cache(NOPS[NopKind.MODERN_64])


def context(name: str, target: int) -> PatchContext:
    """A table whose slots all hold one address."""
    layout = LAYOUTS[name]
    return PatchContext(
        layout=layout, targets=[target] * len(layout.slots), nop_address=NOP, bug_address=BUG, nops=nops
    )


def one_by_one(ctx: PatchContext, type_: int, clobbers: int, original: bytes, addresses: list[int]) -> bytes | str:
    """What the rule makes of each site, or what it says of the first that it refuses."""
    try:
        return b"".join(patch_site(ctx, patch_default, type_, clobbers, original, at) for at in addresses)
    except PatchError as refused:
        return str(refused)


@given(
    sampled_from(("2.6.23", "2.6.24", "6.1-64")),
    sampled_from((0, NOP, NEAR, BASE - (1 << 31), BASE - (1 << 30), 0x10, (1 << 64) - 16)),
    integers(0, 10),
    integers(0, 7),
    integers(1, LONGEST_SITE + 1),
    lists(strategies.one_of(integers(BASE, BASE + 0x1000000), integers(0, 1 << 20)), min_size=1, max_size=6),
)
def test_many_sites_are_what_each_would_be(
    name: str, target: int, type_: int, clobbers: int, length: int, addresses: list[int]
) -> None:
    original = bytes(range(length % 250, length % 250 + 1)) * length
    ctx = context(name, target)
    expected = one_by_one(ctx, type_, clobbers, original, addresses)
    rows = np.tile(np.frombuffer(original, np.uint8), (len(addresses), 1))
    try:
        found: bytes | str = patch_sites(
            context(name, target), patch_default, type_, clobbers, rows, np.array(addresses, np.uint64)
        ).tobytes()
    except PatchError as refused:
        found = str(refused)
    assert found == expected


def test_a_hook_is_asked_for_each_site() -> None:
    asked: list[int] = []

    def patch(_ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        asked.append(addr)
        insnbuf[:3] = bytes((type, clobbers, len))
        return 3

    addresses = [BASE, BASE + 64, BASE + 32]
    rows = np.zeros((3, 6), np.uint8)
    found = patch_sites(context("6.1-64", NEAR), patch, 5, 1, rows, np.array(addresses, np.uint64))
    assert asked == addresses
    assert [row.tobytes() for row in found] == [b"\5\1\6" + nops(3)] * 3


def test_what_a_hook_uses_too_much_of_is_refused() -> None:
    rows = np.zeros((1, 6), np.uint8)
    with pytest.raises(PatchError, match="patch used 7 of 6 bytes"):
        patch_sites(context("6.1-64", NEAR), lambda *_: 7, 5, 1, rows, np.array([BASE], np.uint64))
