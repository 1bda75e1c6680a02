"""CPU states of files: the guest's own comes back, and nothing else reaches the engine."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from pvops_core.errors import MachineError
from pvops_core.kinds import MachineKind
from pvops_core.machine import BareMetal, Machine

CODE = bytes.fromhex("d9e8 d9eb dec1 0f58c1 dbe3 48ffc0 f4")
"""fld1; fldpi; faddp; addps xmm0, xmm1; fninit; inc rax; hlt"""


@pytest.fixture(params=[MachineKind.X86_64, MachineKind.I386])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with Machine(request.param, memory=1 << 20) as made:
        made.attach(BareMetal(made))
        made.memory.write(0x1000, CODE)
        yield made


def slot(machine: Machine):  # type: ignore[no-untyped-def] # noqa: ANN201
    return machine.owners["vcpu0"]


def test_what_is_the_guest_s_comes_back(machine: Machine) -> None:
    vcpu, own = machine.vcpus[0], slot(machine)
    vcpu.batch("rip", "rsp").write(0x1000, 0x8000)
    for name, value in (("fpcw", 0x27F), ("fpsw", 0x2800), ("mxcsr", 0x3F80), ("dr0", 0x77)):
        vcpu.set(name, value)
    state = own.save()
    written = own.written(state)
    vcpu.batch("rip", "rsp").write(1, 2)
    own.load(own.read(written))
    assert own.written(own.save()) == written
    assert (vcpu.rip, vcpu.rsp, vcpu.get("fpcw"), vcpu.get("fpsw")) == (0x1000, 0x8000, 0x27F, 0x2800)
    assert (vcpu.get("mxcsr"), vcpu.get("dr0")) == (0x3F80, 0x77)


def test_nothing_of_this_process_is_written(machine: Machine) -> None:
    machine.run(max_ns=100)
    own = slot(machine)
    words = own.written(own.save()).vcpu.registers
    where = machine.memory.address >> 24
    assert not [at for at in range(0, len(words) - 8, 8) if struct.unpack_from("<Q", words, at)[0] >> 24 == where]
    assert not any(words[:40])


@pytest.mark.parametrize("length", [0, 40, -1, 1])
def test_a_state_of_another_length_is_refused(machine: Machine, length: int) -> None:
    own = slot(machine)
    state = own.written(own.save())
    words = state.vcpu.registers
    wrong = words[:length] if length <= 40 and length != 1 else words + b"x"
    with pytest.raises(MachineError, match="a CPU state of"):
        own.read(state._replace(vcpu=state.vcpu._replace(registers=wrong)))


@pytest.mark.parametrize("bit", [19, 20, 21, 24, 27, 31])
def test_modes_that_no_guest_is_in_are_refused(machine: Machine, bit: int) -> None:
    own = slot(machine)
    state = own.written(own.save())
    words = bytearray(state.vcpu.registers)
    words[machine.layout.hidden_flags + bit // 8] ^= 1 << bit % 8
    with pytest.raises(MachineError, match="in a mode that no guest here is in"):
        own.read(state._replace(vcpu=state.vcpu._replace(registers=bytes(words))))


def test_random_states_harm_nobody(machine: Machine) -> None:
    """Registers, lengths, pointers, FPU indices and rounding modes of a guest gone mad."""
    chance, own = random.Random(17), slot(machine)
    good = own.written(own.save())
    flags = machine.layout.hidden_flags
    for _ in range(60):
        words = bytearray(good.vcpu.registers)
        for _ in range(chance.randrange(1, 400)):
            words[chance.randrange(len(words))] = chance.randrange(256)
        words[flags : flags + 4] = good.vcpu.registers[flags : flags + 4]
        own.load(own.read(good._replace(vcpu=good.vcpu._replace(registers=bytes(words)))))
        machine.vcpus[0].batch("rip", "rsp", "cr0", "cr4").write(0x1000, 0x8000, 0x11, 0x20)
        try:
            machine.run(max_ns=1000)
        except MachineError:
            machine.restore(machine.snapshot())
