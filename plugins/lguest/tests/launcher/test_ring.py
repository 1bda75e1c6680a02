"""A virtio ring as the device sees it: what drivers put up, and what a guest dies of."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import GuestMemory
from pvops_lguest.launcher.ring import LONGEST, Ring, ring_pages

from pvops_core.machine import Machine, MachineKind

if TYPE_CHECKING:
    from collections.abc import Iterator

NUM = 128
PFN = 0x10
BASE = PFN << 12
AVAIL = BASE + 16 * NUM
USED = (AVAIL + 4 + 2 * NUM + 0xFFF) & ~0xFFF
LIMIT = 1 << 20


class Driver:
    """The guest's side."""

    def __init__(self, machine: Machine) -> None:
        self.memory = GuestMemory(machine.memory, LIMIT)
        self.ring = Ring(self.memory, PFN, NUM, 1)

    def describe(self, number: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        self.memory.write(BASE + 16 * number, struct.pack("<QIHH", address, length, flags, following))

    def offer(self, *heads: int) -> None:
        index = self.index
        for head in heads:
            self.memory.write(AVAIL + 4 + 2 * (index % NUM), struct.pack("<H", head))
            index += 1
        self.memory.write(AVAIL + 2, struct.pack("<H", index & 0xFFFF))

    @property
    def index(self) -> int:
        return int.from_bytes(self.memory.read(AVAIL + 2, 2), "little")

    def used(self) -> tuple[int, list[tuple[int, int]]]:
        index = int.from_bytes(self.memory.read(USED + 2, 2), "little")
        return index, [struct.unpack("<II", self.memory.read(USED + 4 + 8 * at, 8)) for at in range(min(index, NUM))]


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Machine(MachineKind.I386, memory=LIMIT) as machine:
        yield Driver(machine)


def test_nothing_is_there_at_first(driver: Driver) -> None:
    assert driver.ring.take() is None
    assert driver.ring.wants_interrupt


def test_a_chain_is_read_filled_and_given_back(driver: Driver) -> None:
    driver.memory.write(0x8000, b"hello, ")
    driver.memory.write(0x9000, b"host")
    driver.describe(3, 0x8000, 7, 1, 4)
    driver.describe(4, 0x9000, 4, 1, 9)
    driver.describe(9, 0xA000, 3, 3, 10)
    driver.describe(10, 0xB000, 5, 2)
    driver.offer(3)
    chain = driver.ring.take()
    assert chain is not None
    assert driver.ring.read(chain) == b"hello, host"
    assert chain.room == 8
    assert driver.ring.fill(chain, b"answer that is too long") == 8
    driver.ring.give(chain, 8)
    assert driver.memory.read(0xA000, 3) + driver.memory.read(0xB000, 5) == b"answer t"
    assert driver.used() == (1, [(3, 8)])
    assert driver.ring.take() is None


def test_the_indices_go_round(driver: Driver) -> None:
    driver.describe(0, 0x8000, 1)
    for count in range(NUM + 5):
        driver.offer(0)
        chain = driver.ring.take()
        assert chain is not None
        driver.ring.give(chain, count)
    index, used = driver.used()
    assert index == NUM + 5
    assert used[4] == (0, NUM + 4)
    assert driver.ring.taken == NUM + 5


def test_interrupts_may_be_unwanted_and_a_reset_forgets(driver: Driver) -> None:
    driver.describe(0, 0x8000, 1)
    driver.offer(0)
    driver.memory.write(AVAIL, b"\1\0")
    assert not driver.ring.wants_interrupt
    driver.ring.take()
    driver.ring.reset()
    assert (driver.ring.taken, driver.index) == (0, 0)
    assert driver.ring.take() is None
    assert ring_pages(NUM) == 2


def looped(driver: Driver) -> None:
    driver.describe(0, 0x8000, 1, 1, 1)
    driver.describe(1, 0x8000, 1, 1, 0)
    driver.offer(0)


def wrong_order(driver: Driver) -> None:
    driver.describe(0, 0x8000, 1, 3, 1)
    driver.describe(1, 0x8000, 1)
    driver.offer(0)


def too_much(driver: Driver) -> None:
    for number in range(NUM):
        driver.describe(number, 0, LIMIT, 1, number + 1)
    driver.offer(0)


BAD = {
    "Guest moved used index from 0 to 129": lambda driver: driver.offer(*[0] * (NUM + 1)),
    "Guest says index 128 is available": lambda driver: driver.offer(NUM),
    "Looped descriptor": looped,
    "Descriptor has out after in": wrong_order,
    "Desc next is 128": lambda driver: (driver.describe(0, 0, 1, 1, NUM), driver.offer(0)),
    f"Invalid address {LIMIT:#x}": lambda driver: (driver.describe(0, LIMIT, 1), driver.offer(0)),
    "Invalid address 0xffffffffffffffff": lambda driver: (driver.describe(0, (1 << 64) - 1, 9), driver.offer(0)),
    f"Buffers of {LONGEST + LIMIT:#x} bytes in one request": too_much,
}


@pytest.mark.parametrize("message", BAD)
def test_a_ring_that_makes_no_sense_kills(driver: Driver, message: str) -> None:
    BAD[message](driver)
    with pytest.raises(GuestKilledError) as killed:
        driver.ring.take()
    assert killed.value.message == message


@settings(deadline=None, max_examples=200)
@given(
    st.binary(min_size=4 * 16, max_size=8 * 16), st.lists(st.integers(0, 0xFFFF), max_size=8), st.integers(0, 0xFFFF)
)
def test_any_ring_ends_in_a_chain_or_a_kill(table: bytes, heads: list[int], index: int) -> None:
    with Machine(MachineKind.I386, memory=LIMIT) as machine:
        driver = Driver(machine)
        driver.memory.write(BASE, table)
        driver.offer(*heads)
        driver.memory.write(AVAIL + 2, index.to_bytes(2, "little"))
        try:
            while (chain := driver.ring.take()) is not None:
                driver.ring.give(chain, driver.ring.fill(chain, driver.ring.read(chain)[:64]))
        except GuestKilledError:
            return
        assert driver.ring.taken == driver.index
