"""Whole actions on a machine: text, states, what vCPUs execute."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import attrs
import pytest

from pvops_core.livepatch.control.registry import PayloadStatus
from pvops_core.livepatch.payload.builder import RELATIVE, Reference
from pvops_core.livepatch.payload.model import Command, State
from pvops_core.machine.run.stateful import where_not_plain
from tests.livepatch.conftest import NEW, NEWER, PLAIN, VERSION, VERSION_CODE, Make, returning

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind


@pytest.mark.parametrize("vcpus", [1, 2, 8])
def test_apply_revert_replace(kind: MachineKind, vcpus: int, patched: Make) -> None:
    made = patched(kind, vcpus)
    made.run()
    before = made.text()
    made.upload("hello", NEW)
    made.upload("other", NEWER)
    assert made.stored() == {PLAIN}
    assert made.act("hello", Command.APPLY) == 0
    assert made.registry.get("hello").state is State.APPLIED
    assert made.stored() == {NEW}
    assert made.act("other", Command.REPLACE) == 0
    assert made.stored() == {NEWER}
    assert made.registry.get("hello").state is State.CHECKED
    assert made.act("other", Command.REVERT) == 0
    assert made.stored() == {PLAIN}
    assert made.rig.memory.read(VERSION, len(VERSION_CODE)) == VERSION_CODE
    for name in ("hello", "other"):
        made.registry.action(name, Command.UNLOAD)
    assert made.text() == before


def test_one_that_keeps_interrupts_off_is_named(patched: Make) -> None:
    made = patched(vcpus=3)
    made.rig.code("ebfe", 0x13000)
    made.machine.vcpus[1].rip = 0x13000
    made.upload("hello")
    before = made.code()
    started = made.machine.clock.ns
    made.registry.action("hello", Command.APPLY, timeout_ns=5000)
    made.run(4000)
    assert made.registry.get("hello").rc == -errno.EAGAIN
    made.run(2000)
    assert made.registry.get("hello").rc == -errno.EBUSY
    assert made.code() == before
    message = made.livepatch.messages[0]
    assert "CPU quiesce phase 1/2" in message
    assert "vcpu 1 interrupts are off" in message
    finished = next(event for event in made.machine.log.events if ("what", "finished") in event.fields)
    assert 5000 < finished.ns - started <= 5000 + 5
    assert made.stored() >= {PLAIN}
    made.machine.vcpus[1].rip = 0x10000
    assert made.act("hello", Command.APPLY) == 0
    assert made.stored() == {NEW}


def test_one_that_halts_with_interrupts_on_comes_in_and_sleeps_on(patched: Make) -> None:
    made = patched(vcpus=2)
    made.rig.code("fb90f4ebfe", 0x13000)  # sti; nop; hlt
    made.machine.vcpus[1].rip = 0x13000
    made.run()
    assert made.machine.vcpus[1].halted
    made.upload("hello")
    assert made.act("hello", Command.APPLY) == 0
    assert made.machine.vcpus[1].halted
    assert not made.machine.vcpus[1].held
    assert made.stored() == {NEW, 0}


def test_one_that_was_never_started_is_not_waited_for(patched: Make) -> None:
    made = patched(vcpus=2)
    made.machine.vcpus[1].halt()
    made.upload("hello")
    assert made.act("hello", Command.APPLY) == 0
    made.machine.vcpus[1].wake()
    assert made.stored() == {NEW}


def test_all_asleep_is_quiet_enough(patched: Make) -> None:
    made = patched(vcpus=2)
    made.rig.code("fb90f4ebfe", 0x13000)
    for vcpu in made.machine.vcpus:
        vcpu.rip = 0x13000
    made.rig.run()
    made.upload("hello")
    assert made.act("hello", Command.APPLY) == 0
    assert made.code() != VERSION_CODE


def test_one_in_user_mode_comes_in_whatever_its_registers_hold(patched: Make) -> None:
    made = patched(vcpus=2)
    made.rig.code("ebfe", 0x18000)
    vcpu = made.machine.vcpus[1]
    vcpu.set_segments(3, 0x23, 0x1B)
    vcpu.rip, vcpu.rsp, vcpu.interrupts_enabled = 0x18000, VERSION + 2, True
    made.upload("hello")
    assert made.act("hello", Command.APPLY) == 0
    assert vcpu.cpl == 3
    assert made.stored() == {NEW, 0}


def test_one_inside_the_function_runs_until_it_is_out(patched: Make) -> None:
    made = patched()
    # version: sti; mov ecx, 400; l: dec ecx; jnz l; mov eax, PLAIN; ret
    made.rig.code("fb b990010000 ffc9 75fc b811111111 c3", VERSION)
    made.rig.cpu.rip = VERSION + 3
    made.rig.cpu.rip = VERSION
    made.rig.cpu.push(0x10006)
    made.upload("hello")
    seen: list[int] = []
    made.poker.observer = lambda _step: seen.append(made.rig.cpu.rip)
    made.registry.action("hello", Command.APPLY)
    made.run(300_000)  # it is outside for 15 ns of 2015, and looked at every 500
    assert made.registry.get("hello").rc == 0
    assert seen
    assert not any(VERSION <= rip < VERSION + len(VERSION_CODE) for rip in seen)
    assert made.stored() == {NEW}


def test_one_that_will_return_into_the_function_is_not_stopped(patched: Make) -> None:
    made = patched()
    made.rig.code("ebfe", 0x13000)
    made.rig.cpu.rip, made.rig.cpu.interrupts_enabled = 0x13000, True
    made.rig.cpu.push(VERSION + 5)
    made.upload("hello")
    assert made.act("hello", Command.APPLY, timeout_ns=5000) == -errno.EBUSY
    assert "vcpu 0 may return into version" in made.livepatch.messages[0]
    made.rig.cpu.pop()
    made.rig.cpu.push(VERSION)
    assert made.act("hello", Command.APPLY, timeout_ns=5000) == 0, "a function's first byte is no return address"


@pytest.mark.parametrize("vector", [2, 18])
def test_nmis_and_machine_checks_wait_until_the_text_is_whole(vector: int, patched: Make) -> None:
    made = patched(vcpus=2)
    handler = 0x14000
    made.rig.gate(vector, handler)
    made.rig.code("ff4710 48cf", handler)  # inc dword [rdi+16]; iretq
    made.upload("hello")
    counted: list[int] = []

    def observe(_step: object) -> None:
        for vcpu in made.machine.vcpus:
            vcpu.raise_unmaskable(vector)
        counted.append(made.rig.memory.u32(0x30010))

    made.poker.observer = observe
    assert made.act("hello", Command.APPLY) == 0
    assert set(counted) == {0}
    assert made.rig.memory.u32(0x30010) == 1, "vcpu 0's"
    assert made.rig.memory.u32(0x30014) == 1, "vcpu 1's"
    assert made.stored() == {NEW}


def test_a_later_payload_may_replace_an_earlier_one(patched: Make) -> None:
    made = patched(vcpus=2)
    made.upload("hello")
    top = made.builder(b"bye", b"hello")
    top.text("bye_version", b"\xb8\x33\x33\x33\x33\xc3")
    top.replace("hello_version", "bye_version", old_size=6)
    with pytest.raises(Exception, match="ENOENT"):
        made.registry.upload("early", top.build().replace(b"hello_version", b"jello_version"))
    # What replaces a function is no new symbol, but a helper of it is.
    helper = made.builder(b"helper")
    helper.text("helper", b"\xb8\x22\x22\x22\x22\xc3")
    helper.text("version2", b"\xe8\0\0\0\0\xc3", [_call("helper")])
    helper.replace("version", "version2", old_size=len(VERSION_CODE))
    made.registry.upload("helper", helper.build())
    above = made.builder(b"above", b"helper")
    above.text("helper3", b"\xb8\x33\x33\x33\x33\xc3")
    above.replace("helper", "helper3", old_size=6)
    made.registry.upload("above", above.build())
    assert made.act("helper", Command.APPLY) == 0
    assert made.stored() == {NEW}
    assert made.act("above", Command.APPLY) == 0
    assert made.stored() == {NEWER}
    assert made.act("above", Command.REVERT) == 0
    assert made.stored() == {NEW}
    assert made.act("above", Command.APPLY) == 0
    assert made.act("hello", Command.REPLACE) == 0
    assert made.stored() == {NEW}
    assert [record.name for record in made.registry.applied] == ["hello"]


def _call(symbol: str) -> Reference:
    return Reference(1, symbol, RELATIVE[64], -4)


def test_stacked_on_one_function(patched: Make) -> None:
    made = patched(vcpus=2)
    before = made.code()
    made.upload("hello", NEW)
    made.upload("bye", NEWER, depends=b"hello")
    assert made.act("hello", Command.APPLY) == made.act("bye", Command.APPLY) == 0
    assert made.stored() == {NEWER}
    assert made.act("bye", Command.REVERT) == 0
    assert made.stored() == {NEW}
    assert made.act("hello", Command.REVERT) == 0
    assert made.code() == before


def test_nops(patched: Make) -> None:
    made = patched()
    made.run()
    nop = made.builder(b"nop")
    nop.replace("version", None, old_size=len(VERSION_CODE), new_size=len(VERSION_CODE) - 1)
    made.registry.upload("nop", nop.build())
    assert made.act("nop", Command.APPLY) == 0
    made.rig.cpu.set("eax", 0x77)
    assert made.stored() == {0x77}, "what was in eax before"
    assert made.act("nop", Command.REVERT) == 0
    assert made.stored() == {PLAIN}


def test_an_endbr_stays(patched: Make) -> None:
    made = patched()
    made.rig.code("f30f1efa" + VERSION_CODE.hex(), VERSION)
    made.run()
    made.upload("hello")
    assert made.act("hello", Command.APPLY) == 0
    assert made.rig.memory.read(VERSION, 5) == bytes.fromhex("f30f1efae9")
    assert made.stored() == {NEW}


@pytest.mark.parametrize("right", [True, False])
def test_expectations(patched: Make, *, right: bool) -> None:
    made = patched()
    made.upload("hello")
    expecting = made.builder(b"expecting")
    expecting.text("expecting_version", b"\xb8\x33\x33\x33\x33\xc3")
    code = VERSION_CODE[:8] if right else b"\xcc" * 6
    expecting.replace("version", "expecting_version", old_size=len(VERSION_CODE), expected=code)
    made.registry.upload("expecting", expecting.build())
    assert made.act("expecting", Command.APPLY) == (0 if right else -errno.EINVAL)
    assert made.stored() == {NEWER if right else PLAIN}
    if right:
        made.act("expecting", Command.REVERT)
    assert made.act("hello", Command.APPLY) == 0
    assert made.act("expecting", Command.REPLACE) == (0 if right else -errno.EINVAL)
    assert made.stored() == {NEWER if right else PLAIN}, "a replace that is refused has reverted all"
    assert made.registry.get("hello") == PayloadStatus(State.CHECKED, 0)
    assert any("SYSTEM MIGHT BE INSECURE" in message for message in made.livepatch.messages) is not right


def test_snapshots_know_of_live_patches(patched: Make) -> None:
    made = patched(vcpus=2)
    made.upload("hello", NEW)
    made.rig.code("ebfe", 0x13000)
    made.machine.vcpus[1].rip = 0x13000
    made.registry.action("hello", Command.APPLY)
    made.run(2000)
    snapshot = made.machine.snapshot()
    assert made.machine.vcpus[0].held
    for _ in range(2):
        made.machine.vcpus[1].rip = 0x10000
        made.run()
        assert made.registry.get("hello").state is State.APPLIED
        assert made.stored() == {NEW}
        made.registry.action("hello", Command.REVERT)
        made.run()
        made.registry.action("hello", Command.UNLOAD)
        made.machine.restore(snapshot)
        assert made.registry.get("hello").rc == -errno.EAGAIN


def test_states_of_live_patches_are_plain_at_every_step(patched: Make) -> None:
    made = patched(vcpus=2)
    made.upload("hello", NEW)
    made.rig.code("ebfe", 0x13000)
    made.machine.vcpus[1].rip = 0x13000
    made.registry.action("hello", Command.APPLY)
    for step in range(4):
        snapshot = made.machine.snapshot()
        states = [state for _owner, state in snapshot.keepers]
        assert [where_not_plain(state) for state in states] == [None] * len(states)
        made.machine.restore(snapshot)
        assert [state for _owner, state in made.machine.snapshot().keepers] == states
        made.machine.vcpus[1].rip = 0x10000
        made.run(1000 if step < 2 else 20_000)
        if step == 2:
            assert made.registry.get("hello").state is State.APPLIED
            made.registry.action("hello", Command.REVERT)


@pytest.mark.parametrize("listed", [True, False])
def test_a_fault_that_the_payload_expects(patched: Make, *, listed: bool) -> None:
    made = patched(vcpus=2)
    builder = made.builder(b"faulty")
    builder.text("faulty", b"\x90\x0f\x0b" + returning(NEW))  # nop; ud2; then the good end
    builder.replace("version", "faulty", old_size=len(VERSION_CODE))
    if listed:
        builder.fixup("faulty", 1, 3)
    made.registry.upload("faulty", builder.build())
    made.rig.gate(6, 0x14000)
    made.rig.code("ebfe", 0x14000)
    assert made.act("faulty", Command.APPLY) == 0
    made.run()
    assert made.stored() == ({NEW} if listed else {0})


@pytest.mark.parametrize("features", [frozenset(), frozenset({40})])
def test_alternatives_of_a_payload(patched: Make, features: frozenset[int]) -> None:
    made = patched()
    object.__setattr__(made.guest, "features", features)
    builder = made.builder(b"alternative")
    builder.text("alternative", returning(NEW))
    builder.replace("version", "alternative", old_size=len(VERSION_CODE))
    other = builder.section(".altinstr_replacement", 6)
    other.data += returning(NEWER)[:5]
    builder.symbols.append(attrs.evolve(builder.symbols[0], name="other", section=other.name))
    table = builder.section(".altinstructions", 2)
    table.references += [Reference(0, "alternative", RELATIVE[64]), Reference(4, "other", RELATIVE[64])]
    table.data += struct.pack("<iiHBB", 0, 0, 40, 5, 5)
    made.registry.upload("alternative", builder.build())
    assert made.act("alternative", Command.APPLY) == 0
    assert made.stored() == {NEWER if features else NEW}
