"""Arguments that no boot has given, for ops to which none can do harm: those that turn one value into another."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from pvops_core.ops import Convention
from pvops_core.x86 import PAGE_SHIFT, PRESENT

if TYPE_CHECKING:
    from pvops_core.ops import Slot

_HIGH: Final = 52
"""The first of the bits above a frame number: those for software, keys, and NX."""


def takes_any(slot: Slot) -> bool:
    """Whether an op only turns values into values: entries of page tables are, pointers and numbers of CPUs are not."""
    op = slot.op
    values = all(arg.ctype.name.endswith("_t") and not arg.ctype.pointer for arg in op.args)
    return op.convention is Convention.CALLEE_SAVE and bool(op.args) and values and op.result is not None


def made_up(given: int, bits: int, frames: int, seed: str) -> int:
    """A value like what was given, or unlike it.

    Its frame is one of the machine's: others a kernel may look up where nothing is mapped, and mend the fault.

    Args:
        given: what a boot gave.
        bits: width of a value.
        frames: how many the machine has.
        seed: decides it.
    """
    chance = random.Random(seed)  # noqa: S311 - the same in every run
    frame = chance.randrange(frames) << PAGE_SHIFT
    flags = chance.getrandbits(PAGE_SHIFT) & ~PRESENT
    high = chance.getrandbits(bits - _HIGH) << _HIGH if bits > _HIGH else 0
    return chance.choice(
        (
            given ^ 1 << chance.randrange(PAGE_SHIFT),
            given ^ PRESENT,
            frame | flags | PRESENT,
            frame | flags | PRESENT | high,
            frame | flags | high,
            flags | PRESENT,
            0,
        )
    )
