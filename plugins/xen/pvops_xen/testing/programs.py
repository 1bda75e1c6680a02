"""Random machine code for small guests: whatever it is, the host must answer, and the frame table must stay right."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

# Hypercalls, system calls, returns, software interrupts, privileged and odd instructions, segment loads, far jumps.
PIECES: Final = (
    *(b"\xcd\x82", b"\x0f\x05", b"\x0f\x34", b"\xf4", b"\x0f\x30", b"\x0f\x32", b"\x0f\x0b", b"\xcc", b"\xcd\x80"),
    *(b"\x0f\x22\xd8", b"\x0f\x20\xc0", b"\x8e\xd8", b"\x8e\xe8", b"\x8e\xd0", b"\xcf", b"\x48\xcf", b"\xfa", b"\xfb"),
    *(b"\xec", b"\xee", b"\xe4\x70", b"\x0f\x01\xd0", b"\x9d", b"\x9c", b"\x0f\x23\xf8", b"\x0f\xa2", b"\x0f\x31"),
    *(b"\xc3", b"\xcb", b"\xf1", b"\x0f\x06", b"\x0f\x08", b"\x0f\x09", b"\x0f\xc7\xf0", b"\x0f\x0bxen\x0f\xa2"),
    *(b"\x8c\xc8", b"\x0f\x00\xd8", b"\x0f\x00\xc8", b"\xff\x28", b"\x9a", b"\x0f\x3f", b"\x0f\x01\xc8", b"\xdb\xe3"),
    *(b"\x0f\x01\xf9", b"\x0f\x01\xf8", b"\x0f\x07", b"\x0f\x35", b"\x0f\xaa", b"\x0f\xae\x00"),
)
_LENGTH: Final = 12
_LIMIT_NS: Final = 3_000_000


def random_code(rng: random.Random) -> bytes:
    """Some instructions of PIECES with bytes of any kind between them."""
    parts = (rng.choice(PIECES) if rng.randrange(2) else rng.randbytes(rng.randrange(1, 5)) for _ in range(_LENGTH))
    return b"".join(parts)


def run_random(guest: SmallGuest, seed: int) -> GuestOutcome:
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
