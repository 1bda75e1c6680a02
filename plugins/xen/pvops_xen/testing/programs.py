"""Random machine code for small guests: whatever it is, the host must answer, and the frame table must stay right."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from pvops_xen.testing.guests import Outcome

if TYPE_CHECKING:
    from pvops_xen.testing.guests import SmallGuest

# Hypercalls, system calls, returns, software interrupts, privileged and odd instructions, segment loads, far jumps.
PIECES: Final = tuple(
    bytes.fromhex(piece)
    for piece in (
        "cd82 0f05 0f34 f4 0f30 0f32 0f0b cc cd80 0f22d8 0f20c0 8ed8 8ee8 8ed0 cf 48cf fa fb ec ee e470 0f01d0 9d 9c "
        "0f23f8 0fa2 0f31 c3 cb f1 0f06 0f08 0f09 0fc7f0 0f0b78656e0fa2 8cc8 0f00d8 0f00c8 ff28 9a 0f3f 0f01c8 dbe3 "
        "0f01f9 0f01f8 0f07 0f35 0faa 0fae00"
    ).split()
)
_LENGTH: Final = 12
_LIMIT_NS: Final = 3_000_000


def random_code(rng: random.Random) -> bytes:
    """Some instructions of PIECES with bytes of any kind between them."""
    parts = (rng.choice(PIECES) if rng.randrange(2) else rng.randbytes(rng.randrange(1, 5)) for _ in range(_LENGTH))
    return b"".join(parts)


def run_random(guest: SmallGuest, seed: int) -> Outcome:
    """Start the guest anew and let its kernel, or now and then a process, execute random code with odd registers."""
    rng = random.Random(seed)  # noqa: S311 - the same every time on purpose
    guest.restart()
    code = ".byte " + ", ".join(map(str, random_code(rng)))
    odd = [
        0,
        1,
        2,
        5,
        17,
        23,
        26,
        29,
        1 << 31,
        guest.va("data"),
        guest.va("stack"),
        guest.hv.abi.m2p_start,
        guest.va(0),
    ]
    odd += [0xE033, 0xE008, 0xE02B, rng.getrandbits(64)]
    letter = "r" if guest.bits == 64 else "e"
    names = [f"{letter}{rest}" for rest in ("ax", "bx", "cx", "dx", "si", "di", "bp")]
    registers = {name: rng.choice(odd) & guest.hv.abi.mask for name in names}
    run = guest.execute_as_user if rng.randrange(3) == 0 else guest.execute
    return run(code, max_ns=_LIMIT_NS, **registers)
