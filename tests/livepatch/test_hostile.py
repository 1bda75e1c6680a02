"""Payloads that are wrong: the errno that Xen gives, and nothing left in the guest."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

import pytest

from pvops_core.livepatch.errors import LivepatchError, PayloadError
from pvops_core.livepatch.payload.model import MAX_SIZE
from tests.livepatch.payloads import INVAL, NOSUP, check_refused, good
from tests.machine.conftest import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.livepatch.conftest import Patched


def test_two_mebibytes_and_one_byte(made: Patched) -> None:
    data = good(made).build()
    check_refused(made, data.ljust(MAX_SIZE + 1, b"\0"), errno.EINVAL)
    made.registry.upload("payload", data.ljust(MAX_SIZE, b"\0"))


HEADERS = {
    "magic": (0, b"\x7fELG", INVAL),
    "class": (4, b"\1", NOSUP),
    "data": (5, b"\2", NOSUP),
    "version": (6, b"\0", NOSUP),
    "executable": (16, b"\2", NOSUP),
    "machine": (18, b"\3", NOSUP),
    "sections past the end": (40, b"\xff\xff\xff\xff", INVAL),
    "small section headers": (58, b"\x20\0", INVAL),
    "no sections": (60, b"\0\0", INVAL),
    "too many sections": (60, b"\xff\xff", INVAL),
    "no section names": (62, b"\0\0", INVAL),
    "section names past the end": (62, b"\xff\0", INVAL),
}


@pytest.mark.parametrize("case", list(HEADERS))
def test_bad_headers(case: str, made: Patched) -> None:
    offset, value, number = HEADERS[case]
    data = bytearray(good(made).build())
    data[offset : offset + len(value)] = value
    check_refused(made, bytes(data), number)


def test_every_truncation(made: Patched) -> None:
    data = good(made).build()
    for length in range(1, len(data), 7):
        check_refused(made, data[:length])


def mutations(data: bytes, count: int) -> Iterator[bytes]:
    generator = random.Random(count)
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(generator.choice([1, 1, 2, 5])):
            at = generator.randrange(len(changed))
            match generator.randrange(3):
                case 0:
                    changed[at] ^= 1 << generator.randrange(8)
                case 1:
                    changed[at : at + 4] = generator.choice([b"\xff" * 4, bytes(4), b"\0\0\0\x80", b"\xff\xff\xff\x7f"])
                case _:
                    changed[at] = generator.randrange(256)
        yield bytes(changed[: len(data)])


def test_five_thousand_mutations(made: Patched) -> None:
    """Refused with a typed error and nothing left, or loaded, and then it can be unloaded again."""
    made.livepatch._prepare()
    refused = 0
    clean = made.rig.memory.read(0, TABLES)
    for number, data in enumerate(mutations(good(made).build(), 5000)):
        try:
            made.registry.upload("payload", data)
        except (PayloadError, LivepatchError):
            refused += 1
        else:
            made.registry.action("payload", 1)
        assert made.guest.area.free == made.guest.area.pages - 1
        if number % 50 == 0:
            assert made.rig.memory.read(0, TABLES) == clean
    assert 1000 < refused < 5000
