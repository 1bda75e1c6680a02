"""Notes of a dump, and what is no whole note."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.dumps.notes import BITS, HEADER, VMCOREINFO, described, note, status_of
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.x86 import MSR_GS_BASE

SIZES = {"Elf64_Ehdr": 64, "Elf64_Phdr": 56, "user_regs_struct": 216, "elf_prstatus": 336}


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(MachineKind.X86_64, memory=1 << 20, vcpus=2) as made:
        yield made


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_structures_are_as_large_as_linux_has_them(name: str, size: int) -> None:
    assert HEADER[name].size(BITS) == size


def test_a_status_has_the_registers_where_they_belong(machine: Machine) -> None:
    cpu = machine.vcpus[1]
    for number, name in enumerate(("r15", "rbx", "rax", "rip", "rsp")):
        cpu.set(name, 0x1000 + number)
    cpu.set_msr(MSR_GS_BASE, 0xFFFF888000001000)
    data = described(status_of(cpu), b"CORE")
    assert data is not None
    assert struct.unpack_from("<i", data, 32) == (2,)
    registers = struct.unpack_from("<27Q", data, 112)
    # r15 … rbx, …, rax, …, rip, cs, flags, rsp, ss, fs_base, gs_base (asm/user_64.h).
    assert [registers[at] for at in (0, 5, 10, 16, 19)] == [0x1000, 0x1001, 0x1002, 0x1003, 0x1004]
    assert registers[22] == 0xFFFF888000001000
    assert registers[15] == (1 << 64) - 1


@given(st.binary(min_size=1, max_size=64))
def test_a_note_is_read_as_it_was_written(data: bytes) -> None:
    assert described(note(VMCOREINFO, 0, data) + b"rest", VMCOREINFO) == data


@given(st.binary(max_size=64))
def test_other_bytes_are_no_note(data: bytes) -> None:
    assert described(data, VMCOREINFO) is None


@pytest.mark.parametrize("cut", [0, 11, 12, 20, 24, 27])
def test_part_of_a_note_is_none(cut: int) -> None:
    assert described(note(VMCOREINFO, 0, b"abcd")[:cut], VMCOREINFO) is None


def test_a_note_of_nothing_is_not_finished() -> None:
    assert described(note(VMCOREINFO, 0, b""), VMCOREINFO) is None
