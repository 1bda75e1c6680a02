"""Rules for memory that nobody reads are asked with the memory that a call has left."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs
import pytest

from pvops_core.backends.proof import Unread
from pvops_core.errors import StructureError
from pvops_core.guest.types.structs import Structures
from pvops_core.images import load_image
from pvops_core.machine import GuestFault
from pvops_core.machine.memory import PhysicalMemory
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.proofs.unread import OF_LINUX, UnreadMemory
from pvops_core.testing.types import INT, PTR, Types

PAGE, VA = 0x1000, 0x7000_0000


@attrs.frozen
class Walked:
    pa: int


class Space:
    """Virtual pages from VA on lie at 0x3000, 0x1000 and nowhere."""

    def walk(self, va: int) -> Walked:
        pages = {VA: 0x3000, VA + PAGE: 0x1000}
        if va & -PAGE not in pages:
            raise GuestFault("not mapped", vector=14, address=va)
        return Walked(pages[va & -PAGE] + va % PAGE)


class Reading:
    """Stands for structures: reads through the space that it is given."""

    space: Reading

    def through(self, space: Reading) -> Reading:
        found = Reading()
        found.space = space
        return found

    def read(self, va: int, length: int) -> bytes:
        return self.space.read(va, length)


class StandingMachine:
    """What is asked of a session."""

    def __init__(self, vcpus: int = 1) -> None:
        self.space, self.structures = Space(), Reading()
        self.machine = self
        self.memory, self.vcpus = PhysicalMemory(1 << 20), range(vcpus)


def masks(find: object, standing: StandingMachine, written: dict[int, bytes]) -> dict[int, list[int]]:
    rule = Unread(find, "a test's", "nowhere")  # type: ignore[arg-type]
    found = UnreadMemory(standing, {"a": rule}).masks(written, {0x1000, 0x3000})  # type: ignore[arg-type]
    return {page: mask.nonzero()[0].tolist() for page, mask in found.items()}


def test_a_rule_sees_what_the_call_has_written_and_may_cross_pages() -> None:
    def rest(structures: Structures, _cpu: int) -> Iterator[tuple[int, int]]:
        used = int.from_bytes(structures.read(VA + PAGE - 2, 4), "little")
        yield VA + PAGE - used, 2 * used

    standing = StandingMachine()
    standing.memory.write(0x3FFE, b"\1\0")
    assert masks(rest, standing, {}) == {0x3000: [4095], 0x1000: [0]}
    written = {0x3000: bytes(0xFFE) + b"\2\0"}
    assert masks(rest, standing, written) == {0x3000: [4094, 4095], 0x1000: [0, 1]}


@pytest.mark.parametrize("error", [StructureError("no such type"), GuestFault("", vector=14, address=0)])
def test_a_rule_of_another_kernel_says_nothing(error: Exception) -> None:
    def none(_structures: Structures, _cpu: int) -> Iterator[tuple[int, int]]:
        yield VA, 1
        raise error

    assert masks(none, StandingMachine(2), {}) == {0x3000: [0], 0x1000: []}


def test_each_cpu_is_asked_about() -> None:
    def one(_structures: Structures, cpu: int) -> Iterator[tuple[int, int]]:
        yield VA + 8 * cpu, 1

    assert masks(one, StandingMachine(3), {})[0x3000] == [0, 8, 16]


def test_each_list_of_slub_s_has_a_count_that_says_nothing() -> None:
    """Of two caches, on the second of two CPUs."""
    types = Types()
    word = types.add(INT, "long unsigned int", 8, tail=struct.pack("<I", 64))
    pointer = types.add(PTR, "", 0)
    node = types.struct("list_head", [("next", pointer, 0), ("prev", pointer, 64)], 16)
    own = types.struct("kmem_cache_cpu", [("freelist", pointer, 0), ("tid", word, 64)], 16)
    types.struct("kmem_cache", [("cpu_slab", types.add(PTR, "", own), 0), ("list", node, 64)], 24)
    builder = ElfBuilder()
    builder.text(".text", bytes(16), address=0xFFFFFFFF81000000)
    builder.symbol("slab_caches", VA)
    builder.symbol("__per_cpu_offset", VA + 0x40)
    builder.section(".BTF", types.build())
    memory = bytearray(0x100)
    first, second = VA + 0x80, VA + 0xC0
    struct.pack_into("<Q", memory, 0, first + 8)
    struct.pack_into("<2Q", memory, 0x40, 0, 0x100_0000)
    struct.pack_into("<2Q", memory, 0x80, 0x500, second + 8)
    struct.pack_into("<2Q", memory, 0xC0, 0x700, VA)

    class Bytes:
        def read(self, va: int, length: int) -> bytes:
            return bytes(memory[va - VA :][:length])

    structures = Structures(load_image(builder.build()), Bytes(), 2)
    assert list(OF_LINUX["kmem_cache_cpu.tid"].find(structures, 1)) == [(0x100_0508, 8), (0x100_0708, 8)]
    assert list(OF_LINUX["kmem_cache_cpu.tid"].find(structures, 0)) == [(0x508, 8), (0x708, 8)]


def test_every_rule_says_why_and_where_that_is_known_from() -> None:
    assert all(rule.reason and rule.source for rule in OF_LINUX.values())
