"""Damage is a seed's, and is damage."""

from __future__ import annotations

import random

import pytest

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.testing.images import ElfBuilder, make_bzimage, wrap_payload
from soak.damage import bombs, fields, packed


def small(bits: int) -> bytes:
    builder = ElfBuilder(bits, 0x1000000)
    builder.symbol("start", builder.text(".text", b"\xf4" * 64))
    return builder.build()


@pytest.mark.parametrize("bits", [64, 32])
def test_every_kind_of_damage_is_of_its_seed(bits: int) -> None:
    good = small(bits)
    for make, raw in (
        (fields.elf, good),
        (fields.boot, make_bzimage(good)),
        (fields.stream, packed.PACKERS["xz"](good)),
    ):
        made = [make(raw, random.Random(seed)) for seed in range(50)]
        assert made == [make(raw, random.Random(seed)) for seed in range(50)]
        assert sum(each != raw for each in made) > 40


@pytest.mark.parametrize("format_", packed.PACKERS)
def test_every_format_is_one_that_is_read(format_: str) -> None:
    good = small(64)
    assert load_image(wrap_payload(packed.PACKERS[format_](good))).data == good


def test_bombs_are_refused() -> None:
    for format_, bomb in bombs.some(random.Random(1)):
        with pytest.raises(ImageError):
            load_image(bomb, format_)
