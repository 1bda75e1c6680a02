"""What is left out where hooks are proven: of a kernel's batch what lies beyond use, and virtual times."""

from __future__ import annotations

import struct

import pytest
from pvops_xen import backend
from pvops_xen.hypervisor.abi import Hypercall, MmuExt
from pvops_xen.proof import beyond_use, runstate_times

from pvops_core.errors import StructureError
from pvops_core.guest.types.structs import Structures
from pvops_core.images import load_image
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.types import ARRAY, INT, Types

VAR = 14
BATCH, RUNSTATE, SIZE = 0x10000, 0x20000, 3088
ENTRIES, ARGS, CALLBACKS = 16, 2064, 2576


class Memory:
    """A batch, and nothing else."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)

    def read(self, va: int, length: int) -> bytes:
        return bytes(self.data[va - BATCH :][:length])

    def count(self, entries: int, arguments: int, callbacks: int) -> None:
        struct.pack_into("<III", self.data, 0, entries, arguments, callbacks)

    def entry(self, number: int, *words: int) -> None:
        struct.pack_into(f"<{len(words)}Q", self.data, ENTRIES + 64 * number, *words)


def kernel(*, with_batch: bool = True) -> Structures:
    types = Types()
    half, word = (types.add(INT, name, size, tail=struct.pack("<I", 8 * size)) for name, size in INTEGERS)

    def array(element: int, count: int) -> int:
        return types.add(ARRAY, "", 0, tail=struct.pack("<III", element, word, count))

    entry = types.struct("multicall_entry", [("op", word, 0), ("result", word, 64), ("args", array(word, 6), 128)], 64)
    callback = types.struct("callback", [("fn", word, 0), ("data", word, 64)], 16)
    members = [
        ("mcidx", half, 0),
        ("argidx", half, 32),
        ("cbidx", half, 64),
        ("entries", array(entry, 32), 8 * ENTRIES),
    ]
    members += [("args", array(word, 64), 8 * ARGS), ("callbacks", array(callback, 32), 8 * CALLBACKS)]
    members_of_state = [("state", half, 0), ("state_entry_time", word, 64), ("time", array(word, 4), 128)]
    state = types.struct("vcpu_runstate_info", members_of_state, 48)
    types.add(VAR, "xen_runstate", state, tail=bytes(4))
    if with_batch:
        types.add(VAR, "mc_buffer", types.struct("mc_buffer", members, SIZE), tail=bytes(4))
    builder = ElfBuilder()
    builder.text(".text", bytes(16), address=0xFFFFFFFF81000000)
    builder.symbol("mc_buffer", BATCH)
    builder.symbol("xen_runstate", RUNSTATE)
    builder.section(".BTF", types.build())
    return Structures(load_image(builder.build()), MEMORY, 1)


INTEGERS = (("unsigned int", 4), ("long unsigned int", 8))
MEMORY = Memory()


@pytest.fixture
def memory() -> Memory:
    MEMORY.data[:] = bytes(SIZE)
    return MEMORY


def unused(structures: Structures) -> set[int]:
    """Offsets into the batch."""
    return {at - BATCH + each for at, length in beyond_use(structures, 0) for each in range(length)}


def test_an_empty_batch_is_all_beyond_use(memory: Memory) -> None:
    memory.count(0, 0, 0)
    assert unused(kernel()) == set(range(ENTRIES, SIZE))


def test_a_full_batch_is_all_in_use_but_for_results(memory: Memory) -> None:
    memory.count(32, 512, 32)
    for number in range(32):
        memory.entry(number, 1 << 40)  # no hypercall that is known: all its words may count
    assert unused(kernel()) == {ENTRIES + 64 * number + 8 + each for number in range(32) for each in range(8)}


def test_of_an_entry_its_hypercall_s_arguments_are_in_use(memory: Memory) -> None:
    memory.count(2, 0, 1)
    memory.entry(0, Hypercall.FPU_TASKSWITCH)
    memory.entry(1, Hypercall.MMU_UPDATE)
    found = unused(kernel())
    assert [number for number in range(8) if ENTRIES + 8 * number in found] == [1, 3, 4, 5, 6, 7]
    assert [number for number in range(8) if ENTRIES + 64 + 8 * number in found] == [1, 6, 7]
    assert CALLBACKS + 15 not in found
    assert CALLBACKS + 16 in found


def test_of_an_operation_what_its_command_has_is_in_use(memory: Memory) -> None:
    memory.count(1, 72, 0)
    memory.entry(0, Hypercall.MMUEXT_OP, 0, BATCH + ARGS, 3)
    for number, command in enumerate((MmuExt.TLB_FLUSH_LOCAL, MmuExt.TLB_FLUSH_MULTI, MmuExt.PIN_L1_TABLE)):
        struct.pack_into("<I", memory.data, ARGS + 24 * number, command)
    found = unused(kernel())
    halves = [
        [place in found for place in range(ARGS + 24 * number, ARGS + 24 * number + 24, 4)] for number in range(3)
    ]
    assert halves == [
        [False, True, True, True, True, True],
        [False, True, True, True, False, False],
        [False, True, False, False, True, True],
    ]


def test_the_state_of_a_vcpu_is_compared_and_its_times_are_not() -> None:
    assert list(runstate_times(kernel(), 0)) == [(RUNSTATE + 8, 40)]


def test_a_kernel_without_a_batch_says_so() -> None:
    with pytest.raises(StructureError):
        list(beyond_use(kernel(with_batch=False), 0))


def test_every_note_has_a_reason_and_a_source() -> None:
    assert all(each.reason and each.source for each in backend.proof.unread.values())
    assert len(backend.proof.justified) <= 5
