"""The door to Unicorn: memory, and engines that come and go."""

from __future__ import annotations

import ctypes
import gc
import mmap
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.errors import MachineError, MemoryAccessError
from pvops_core.machine import Machine, MachineKind, PhysicalMemory
from pvops_core.machine.cpu.model import cpuid
from pvops_core.machine.unicorn import engine as uc


def test_cpuid_offers_nothing_that_the_engine_lacks() -> None:
    memory = mmap.mmap(-1, 0x10000)
    view = (ctypes.c_uint8 * 0x10000).from_buffer(memory)
    engine = uc.Engine(64, ctypes.addressof(view), 0x10000)
    with Machine(MachineKind.X86_64) as machine:
        for leaf, emulated in ((1, 1 << 31), (0x80000001, 0)):
            code = b"\xb8" + leaf.to_bytes(4, "little") + bytes.fromhex("0fa2f4")
            memory[0x1000 : 0x1000 + len(code)] = code
            engine.flush_code()
            engine.start(0x1000)
            _, _, ecx, edx = cpuid.cpuid(machine.vcpus[0], leaf, 0)
            assert ecx & ~engine.read(uc.REGISTER_IDS["ecx"]) & ~emulated == 0
            assert edx & ~engine.read(uc.REGISTER_IDS["edx"]) == 0
    engine.close()


def test_machines_do_not_leak() -> None:
    machines = 10

    def grown() -> int:
        for _ in range(machines):
            with Machine(MachineKind.X86_64, vcpus=2) as machine:
                machine.memory.array[::4096] = 1
                snapshot = machine.snapshot()
                machine.restore(snapshot)
            del snapshot, machine
        gc.collect()
        return len(list(Path("/proc/self/maps").read_text().splitlines()))

    grown()
    before = grown(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    after = grown(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # The interpreter's own arenas come and go; a leak would be one mapping or more a machine.
    assert after[0] < before[0] + machines
    assert after[1] <= before[1] + 20_000


@pytest.mark.parametrize(("pa", "n"), [(-1, 1), (0x1000, 1), (0xFFF, 2), (0, -1), (1 << 70, 8), (0xFF9, 8)])
def test_physical_accesses_outside_are_refused(pa: int, n: int) -> None:
    memory = PhysicalMemory(0x1000)
    with pytest.raises(MemoryAccessError) as caught:
        memory.read(pa, n)
    assert (caught.value.address, caught.value.length) == (pa, n)
    if n in {1, 2, 8}:
        with pytest.raises(MemoryAccessError):
            getattr(memory, f"u{n * 8}")(pa)
        with pytest.raises(MemoryAccessError):
            getattr(memory, f"set_u{n * 8}")(pa, 0)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(writes=st.lists(st.tuples(st.integers(0, 0x3FF0), st.binary(min_size=1, max_size=16)), max_size=8))
def test_a_restored_memory_is_the_saved_one(writes: list[tuple[int, bytes]]) -> None:
    memory, model = PhysicalMemory(0x4000), bytearray(0x4000)
    saved = [(memory.save(), bytes(model))]
    for pa, data in writes:
        memory.write(pa, data)
        model[pa : pa + len(data)] = data
        saved.append((memory.save(), bytes(model)))
    for snapshot, contents in reversed(saved):
        memory.write(0x100, b"afterwards")
        memory.load(snapshot)
        assert memory.array.tobytes() == contents


def test_a_snapshot_of_another_size_is_refused() -> None:
    with pytest.raises(MachineError, match="does not fit"):
        PhysicalMemory(0x1000).load(PhysicalMemory(0x2000).save())


@pytest.mark.parametrize(
    "name", ["tr", "ldtr", "gdtr", "idtr", "xmm0", "ymm15", "st0", "fp7", "msr", "invalid", "nothing"]
)
def test_what_is_no_register_of_a_word_is_refused(name: str) -> None:
    """The engine would write more than a word over what lies behind it."""
    with Machine(MachineKind.X86_64, memory=1 << 20) as machine:
        cpu = machine.vcpus[0]
        for ask in (cpu.get, cpu.batch, lambda given: cpu.set(given, 0)):
            with pytest.raises(MachineError, match=f"no register '{name}'"):
                ask(name)
