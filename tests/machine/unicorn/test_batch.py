"""Lists of registers: read as they are written, one by one or together, and no wider than a word."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind
from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn.batch import Batch, MixedBatch, MsrBatch, register_id
from pvops_core.machine.unicorn.engine import Engine
from pvops_core.x86 import MSR_EFER

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = 0x10000
NAMES = ("rax", "rbx", "rsi", "r9", "r15")
STAR = 0xC000_0081


@pytest.fixture
def engine() -> Iterator[Engine]:
    memory = uc.ctypes.create_string_buffer(2 * MEMORY)
    made = Engine(64, uc.ctypes.addressof(memory) + -uc.ctypes.addressof(memory) % 0x1000, MEMORY)
    yield made
    made.close()


def test_what_is_written_together_is_read_alone_and_back(engine: Engine) -> None:
    ids, chance = [register_id(MachineKind.X86_64, name) for name in NAMES], random.Random(3)
    batch = Batch(engine, ids)
    for _ in range(20):
        values = tuple(chance.getrandbits(64) for _ in ids)
        batch.write(*values)
        assert tuple(map(engine.read, ids)) == batch.read() == values


def test_one_alone_is_cut_to_its_word(engine: Engine) -> None:
    number = register_id(MachineKind.X86_64, "rdx")
    Batch(engine, [number]).put((1 << 70) + 5)
    assert engine.read(number) == 5


def test_msrs_beside_registers(engine: Engine) -> None:
    engine.write_msr(STAR, 0x1234_5678_9ABC_DEF0)
    engine.write(uc.REGISTER_IDS["rbx"], 77)
    assert MsrBatch(engine, [STAR, MSR_EFER]).read() == (0x1234_5678_9ABC_DEF0, engine.read_msr(MSR_EFER))
    mixed = MixedBatch(engine, ["rbx", "rip"], STAR)
    mixed.read()
    assert (mixed.values[0], mixed.msr.value) == (77, 0x1234_5678_9ABC_DEF0)


@pytest.mark.parametrize("kind", MachineKind)
def test_names_of_both_widths(kind: MachineKind) -> None:
    low = uc.REGISTER_IDS["eax"], uc.REGISTER_IDS["rax"]
    assert register_id(kind, "rax") == low[kind.bits == 64]
    assert register_id(kind, "rflags") == register_id(kind, "flags" if kind.bits == 64 else "eflags")
    if kind.bits == 32:
        for name in ("r8", "fs_base"):
            with pytest.raises(MachineError, match=f"{kind.value} has no register '{name}'"):
                register_id(kind, name)


def test_no_register_wider_than_a_word_has_a_number() -> None:
    """The library would write all of it over what lies behind the word."""
    wide = [name for name in uc.REGISTER_IDS if name[:3] in {"xmm", "ymm", "zmm"} or name in {"gdtr", "tr", "st0"}]
    assert len(wide) > 50
    for name in wide:
        with pytest.raises(MachineError):
            register_id(MachineKind.X86_64, name)
