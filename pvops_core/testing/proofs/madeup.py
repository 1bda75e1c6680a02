"""Arguments that no boot has given, for ops to which none can do harm: those that turn one value into another."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from pvops_core.ops import Convention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.ops import Slot

_PRESENT: Final = 1
_PAGE_SHIFT: Final = 12
_FLAGS: Final = 0xFFF


def takes_any(slot: Slot) -> bool:
    """Whether an op only turns values into values: entries of page tables are, pointers and numbers of CPUs are not."""
    op = slot.op
    values = all(arg.ctype.name.endswith("_t") and not arg.ctype.pointer for arg in op.args)
    return op.convention is Convention.CALLEE_SAVE and bool(op.args) and values and op.result is not None


def made_up(given: int, bits: int, seed: str) -> Iterator[int]:
    """Values like what was given, and unlike it.

    Args:
        given: what a boot gave.
        bits: width of a value.
        seed: decides them.
    """
    chance = random.Random(seed)  # noqa: S311 - the same in every run
    while True:
        frame = chance.getrandbits(chance.randrange(1, bits - _PAGE_SHIFT)) << _PAGE_SHIFT
        yield chance.choice(
            (
                given ^ 1 << chance.randrange(bits),
                given ^ _PRESENT,
                frame | _PRESENT | chance.getrandbits(_PAGE_SHIFT) & _FLAGS,
                frame | chance.getrandbits(_PAGE_SHIFT) & _FLAGS & ~_PRESENT,
                chance.getrandbits(bits),
                0,
                (1 << bits) - 1,
            )
        )
