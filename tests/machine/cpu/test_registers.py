"""Registers by name: what is written is read back, cut to the machine's width, alone and in lists."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine.cpu.registers import GENERAL

if TYPE_CHECKING:
    from tests.machine.conftest import Rig


def test_each_holds_its_own_number(rig: Rig) -> None:
    names, chance = GENERAL[rig.kind.bits], random.Random(7)
    given = {name: chance.getrandbits(70) for name in names}
    for name, value in given.items():
        rig.cpu.set(name, value)
    cut = {name: value & rig.kind.mask for name, value in given.items()}
    assert {name: rig.cpu.get(name) for name in names} == cut
    assert rig.cpu.batch(*names).read() == tuple(cut.values())
    rig.cpu.batch(*names).write(*reversed(cut.values()))
    assert [rig.cpu.get(name) for name in names] == list(reversed(cut.values()))


@pytest.mark.parametrize("name", ["cs", "ss", "ds", "es", "fs", "gs"])
def test_a_segment_register_is_not_set_without_its_descriptor(rig: Rig, name: str) -> None:
    before = rig.cpu.get(name)
    with pytest.raises(MachineError, match="loaded with its descriptor"):
        rig.cpu.set(name, 0x10)
    assert rig.cpu.get(name) == before


@pytest.mark.parametrize("name", ["", "rzx", "xmm0", "st1", "gdtr", "msr", "R8"])
def test_what_is_none_has_an_error_that_names_it(rig: Rig, name: str) -> None:
    for asked in (rig.cpu.get, lambda name: rig.cpu.set(name, 0), rig.cpu.batch):
        with pytest.raises(MachineError, match=f"has no register {name!r}"):
            asked(name)


def test_who_writes_rip_is_seen_to(rig: Rig) -> None:
    for write in (
        lambda: rig.cpu.set("rip", 0x1234),
        lambda: rig.cpu.batch("rax", "rip").write(1, 0x1234),
        lambda: setattr(rig.cpu, "rip", 0x1234),
    ):
        rig.cpu.rip_written = False
        write()
        assert rig.cpu.rip_written
        assert rig.cpu.rip == 0x1234
    rig.cpu.rip_written = False
    rig.cpu.batch("rax", "rbx").write(1, 2)
    assert not rig.cpu.rip_written
