"""Lock prefixes: where kernels of each age say that they are, and what one CPU puts there."""

from __future__ import annotations

import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import ImageError
from pvops_core.images import KernelImage, load_image
from pvops_core.images.elfwriter import ALLOC
from pvops_core.patching.altinstructions.alternatives import AltGroup
from pvops_core.patching.locks import SECTION, LockPrefixes, read_locks
from pvops_core.testing.images import ElfBuilder

BASE, TABLE = 0xC0100000, 0xC0180000
TEXT = bytes.fromhex("f0ff00 90 f00fb111 c3 66f00fc110 c3".replace(" ", ""))
"""lock inc, a nop, lock cmpxchg, ret; a data-size prefix before the lock of an xadd."""
FIRST, SECOND, HIDDEN = BASE, BASE + 4, BASE + 9


def kernel(table: bytes, *, bits: int = 32, unlock: bytes = b"", etext: int = BASE + 0x80) -> KernelImage:
    builder = ElfBuilder(bits, base=BASE)
    builder.text(".text", TEXT.ljust(0x40, b"\xcc") + unlock.ljust(0x40, b"\xcc"))
    builder.section(SECTION, table, flags=ALLOC, address=TABLE)
    for name, address in (("_text", BASE), ("alternatives_smp_unlock", BASE + 0x40), ("_etext", etext)):
        builder.symbol(name, address)
    return load_image(builder.build(), "locks")


def pointers(*addresses: int, form: str = "I") -> bytes:
    return struct.pack(f"<{len(addresses)}{form}", *addresses)


def offsets(*addresses: int) -> bytes:
    return struct.pack(
        f"<{len(addresses)}i", *(address and address - TABLE - 4 * at for at, address in enumerate(addresses))
    )


@pytest.mark.parametrize(
    ("table", "bits", "unlock", "alone"),
    [
        (pointers(FIRST, SECOND), 32, "", 0x90),
        (pointers(FIRST, SECOND), 32, "c644240f3e c3", 0x3E),
        (pointers(FIRST, SECOND, form="Q"), 64, "c644240f3e c3", 0x3E),
        (offsets(FIRST, 0, SECOND, 0), 32, "", 0x3E),
        (offsets(FIRST, 0, SECOND, HIDDEN), 64, "", 0x3E),
    ],
)
def test_tables_of_every_age(table: bytes, bits: int, unlock: str, alone: int) -> None:
    locks = read_locks(kernel(table, bits=bits, unlock=bytes.fromhex(unlock)), ())
    assert locks == LockPrefixes((FIRST, SECOND), alone)
    assert (locks.byte(1), locks.byte(2)) == (alone, 0xF0)


def test_the_kernel_leaves_what_is_behind_its_text() -> None:
    assert read_locks(kernel(offsets(FIRST, SECOND), etext=SECOND), ()) == LockPrefixes((FIRST,), 0x3E)


def test_places_with_alternatives_keep_theirs() -> None:
    group = AltGroup(SECOND - 2, 3, ())
    assert read_locks(kernel(offsets(FIRST, SECOND)), (group,)) == LockPrefixes((FIRST,), 0x3E)
    assert read_locks(kernel(offsets(FIRST, SECOND)), (attrs.evolve(group, length=2),)) == LockPrefixes(
        (FIRST, SECOND), 0x3E
    )


def test_a_kernel_for_one_cpu_has_none() -> None:
    builder = ElfBuilder(32, base=BASE)
    builder.text(".text", TEXT)
    assert read_locks(load_image(builder.build(), "one"), ()) is None
    assert read_locks(kernel(b""), ()) is None


@pytest.mark.parametrize("table", [pointers(BASE + 3), pointers(1), b"\1\2\3", offsets(HIDDEN)])
def test_a_table_that_leads_elsewhere_is_refused(table: bytes) -> None:
    with pytest.raises(ImageError, match="leads to bytes that are no lock prefixes") as caught:
        read_locks(kernel(table), ())
    assert caught.value.field == SECTION


@given(st.binary(max_size=64))
def test_no_table_does_harm(table: bytes) -> None:
    try:
        locks = read_locks(kernel(table), ())
    except ImageError:
        return
    assert locks is None or all(TEXT[address - BASE] == 0xF0 for address in locks.addresses)
