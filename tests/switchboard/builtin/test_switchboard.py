"""Switching ops: slot and sites together, back again, from a hook, whole backends, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError, PatchError, PluginError, SwitchError, UsageError
from pvops_core.hookspecs import hookimpl
from pvops_core.machine import Reschedule
from pvops_core.ops import LAYOUTS as CATALOGUE
from pvops_core.patching.patchdefault import patch_default
from pvops_core.patching.poke import PokeStep
from pvops_core.testing.points import run_to
from tests.switchboard.conftest import LAYOUTS, Make

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu
    from pvops_core.patching.context import PatchContext
    from pvops_core.session import Session


def slot(session: Session, op: str) -> int:
    """What the op's slot in guest memory holds."""
    layout = CATALOGUE[session.builtin.layout]
    place = layout.by_op(op)
    address = session.guest.symbols[place.symbol] + place.offset
    return int.from_bytes(session.read(address, layout.pointer_size), "little")


def state(session: Session) -> tuple[object, ...]:
    """All that a failed switch must leave alone."""
    board = session.switchboard
    layout = CATALOGUE[session.builtin.layout]
    slots = tuple(slot(session, place.op.name) for place in layout.slots)
    names = tuple(board.implementation(place.op.name).name for place in layout.slots if not place.op.is_data)
    return slots, names, session.text_sha256(), tuple(board.history)


def flags(cpu: Vcpu) -> int:
    return cpu.rflags


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_site_begins_indirect_and_its_slot_holds_a_gate(make: Make, layout: str) -> None:
    session = make(layout)
    assert {form for forms in session.switchboard.site_forms_by_op().values() for form in forms} == {"indirect"}
    start = session.builtin.gates_address
    assert start < slot(session, "save_fl") < start + 8 * session.builtin.gate_count


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_switch_moves_the_slot_and_every_patched_site_and_back(make: Make, layout: str) -> None:
    session = make(layout)
    board = session.switchboard
    board.apply_paravirt()
    before = state(session)
    forms = board.site_forms_by_op()["save_fl"]
    own = board.implementation("save_fl")
    board.switch("save_fl", flags, by="test")
    assert slot(session, "save_fl") != before[0]
    assert board.implementation("save_fl").function is flags
    assert "inlined" not in board.site_forms_by_op()["save_fl"], "an inlined site would skip the new hook"
    assert forms["inlined"] > 0
    board.switch("save_fl", own, by="test")
    assert session.text_sha256() == before[2]
    assert [change.new for change in board.history] == ["flags", "native.save_fl"]
    assert board.site_forms_by_op()["save_fl"] == forms


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("step", list(PokeStep))
def test_a_failed_switch_changes_nothing(make: Make, layout: str, step: PokeStep) -> None:
    session = make(layout)
    board = session.switchboard
    board.apply_paravirt()
    before = state(session)

    def fail(at: PokeStep) -> None:
        if at is step:
            raise MachineError("injected")

    board.poker.observer = fail
    with pytest.raises(SwitchError, match="injected") as caught:
        board.switch("save_fl", flags, by="test")
    assert caught.value.op == "save_fl"
    assert state(session) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_op_switched_to_nothing_becomes_nops_where_it_was_patched(make: Make, layout: str) -> None:
    session = make(layout)
    board = session.switchboard
    board.apply_paravirt()
    board.switch("write_cr3", None, by="test")
    assert set(board.site_forms_by_op()["write_cr3"]) == {"nop"}
    board.switch("write_cr3", "native", by="test")
    assert "nop" not in board.site_forms_by_op()["write_cr3"]


def test_an_op_can_be_switched_more_often_than_there_are_gates(make: Make) -> None:
    session = make("6.1-64")
    for number in range(2 * session.builtin.gate_count):
        session.switchboard.switch("save_fl", lambda _cpu, number=number: number, by="test")
    assert len(session.switchboard.history) == 2 * session.builtin.gate_count


class Tired:
    """Ops that hand over to their better halves at their third call, as Xen's early write_cr3 does."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.calls: list[str] = []

    def called(self, op: str, late: Callable[..., int | None]) -> None:
        self.calls.append("early")
        if len(self.calls) == 3:
            self.env.switch(op, late, by=op)
            assert self.env.machine.running


class TiredFlag(Tired):
    """In 2.6 the site of this op pushes and pops around the call: the caller returns into its middle."""

    @hookimpl
    def patch(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        return patch_default(ctx, type, clobbers, insnbuf, addr, len)

    @hookimpl
    def irq_disable(self, cpu: Vcpu) -> None:
        self.called("irq_disable", self.irq_disable_late)
        cpu.insn.cli()

    def irq_disable_late(self, cpu: Vcpu) -> None:
        self.calls.append("late")
        cpu.insn.cli()


class TiredEntry(Tired):
    @hookimpl
    def set_pte(self, cpu: Vcpu, ptep: int, pteval: int) -> None:
        self.called("set_pte", self.set_pte_late)
        cpu.set_u64(ptep, pteval)

    def set_pte_late(self, cpu: Vcpu, ptep: int, pteval: int) -> None:
        self.calls.append("late")
        cpu.set_u64(ptep, pteval)


@pytest.mark.parametrize(
    ("layout", "op", "ops"),
    [("2.6.24", "irq_disable", TiredFlag), ("2.6.24-pae", "set_pte", TiredEntry), ("6.1-64", "set_pte", TiredEntry)],
)
def test_a_hook_that_switches_itself_is_not_called_again(make: Make, layout: str, op: str, ops: type[Tired]) -> None:
    session = make(layout, ops)
    stop = session.run(max_ns=2_000_000_000)
    assert stop.reason == "poweroff", stop
    (change,) = session.switchboard.history
    assert (change.op, change.new, change.by) == (op, f"other.{op}_late", op)
    calls = session.switchboard.calls[op]
    assert calls > 3
    function = session.switchboard.implementation(op).function
    assert function is not None
    recorded = function.__self__.calls  # type: ignore[attr-defined]
    assert recorded == ["early"] * 3 + ["late"] * (calls - 3)


class BadPatcher:
    """A ``patch`` hook that fails in a way of the test's choosing."""

    def __init__(self, env: Environment) -> None:
        self.env = env

    @hookimpl
    def save_fl(self, cpu: Vcpu) -> int:
        return cpu.insn.pushf()

    @hookimpl
    def patch(self, insnbuf: bytearray, len: int) -> int:
        return self.answer(insnbuf, len)

    def answer(self, insnbuf: bytearray, len: int) -> int:
        raise ZeroDivisionError(f"{insnbuf.hex()} {len}")


class Greedy(BadPatcher):
    def answer(self, insnbuf: bytearray, len: int) -> int:
        del insnbuf
        return len + 1


class Stretching(BadPatcher):
    def answer(self, insnbuf: bytearray, len: int) -> int:
        insnbuf += b"\x90"
        return len


class Mute(BadPatcher):
    def answer(self, insnbuf: bytearray, len: int) -> int:
        del insnbuf, len
        return None  # type: ignore[return-value]


@pytest.mark.parametrize("ops", [BadPatcher, Greedy, Stretching, Mute])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_patch_hook_that_fails_changes_nothing(make: Make, layout: str, ops: type[BadPatcher]) -> None:
    session = make(layout, ops)
    board = session.switchboard
    before = state(session)
    with pytest.raises((PatchError, PluginError)):
        board.apply_paravirt()
    assert state(session) == before


class Flags:
    """A backend that overrides one op."""

    def __init__(self, env: Environment) -> None:
        self.env = env

    @hookimpl
    def save_fl(self, cpu: Vcpu) -> int:
        return cpu.insn.pushf()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_backend_is_switched_in_one_transaction(make: Make, layout: str) -> None:
    session = make(layout, Flags)
    board = session.switchboard
    board.apply_paravirt()
    assert board.implementation("save_fl").backend == "other"
    board.switch_backend("native", by="test")
    assert board.implementation("save_fl").backend == "native"
    assert board.site_forms_by_op()["save_fl"]["inlined"] > 0
    board.switch_backend("other", by="test")
    assert board.implementation("save_fl").backend == "other"
    assert [change.op for change in board.history] == ["save_fl", "save_fl"]


def test_what_cannot_be_switched_to_is_refused_by_name(make: Make) -> None:
    board = make("6.1-64").switchboard
    with pytest.raises(SwitchError, match="no op 'frobnicate'"):
        board.switch("frobnicate", flags, by="test")
    with pytest.raises(SwitchError, match="no such backend"):
        board.switch("save_fl", "vmi", by="test")
    with pytest.raises(SwitchError, match="not callable"):
        board.switch("save_fl", 7, by="test")  # type: ignore[arg-type]
    with pytest.raises(SwitchError, match="takes no argument"):
        board.switch("save_fl", lambda: 0, by="test")
    with pytest.raises(UsageError, match="no op"):
        board.implementation("frobnicate")


class Broken:
    """A hook that fails as plugins fail."""

    def __init__(self, env: Environment) -> None:
        self.env = env

    @hookimpl
    def load_gdt(self, cpu: Vcpu, dtr: int) -> None:
        raise ZeroDivisionError(f"vcpu {cpu.index}, dtr {dtr}")


def test_an_exception_of_a_hook_names_backend_and_hook(make: Make) -> None:
    session = make("6.1-64", Broken)
    with pytest.raises(PluginError, match="ZeroDivisionError") as caught:
        session.run(max_ns=10_000_000)
    assert (caught.value.distribution, caught.value.hook) == ("other", "load_gdt")


def test_a_call_of_an_empty_slot_ends_the_run(make: Make) -> None:
    session = make("6.1-64")
    board = session.switchboard
    board.switch("load_gdt", board.empty("load_gdt"), by="test")
    board.apply_paravirt()
    stop = session.run(max_ns=10_000_000)
    assert stop.reason == "crash"
    assert "paravirt_BUG" in stop.detail


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_patch_hook_is_told_the_patchlets_of_what_each_op_has_now(make: Make, layout: str) -> None:
    board = make(layout).switchboard
    before = board.context().patchlets
    assert {"save_fl", "irq_enable"} <= before.keys()
    assert all(patchlet.op == op for op, patchlet in before.items())
    board.switch("save_fl", flags, by="test")
    assert board.context().patchlets.keys() == before.keys() - {"save_fl"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_switch_that_a_call_asks_for_which_then_waits_is_refused_and_the_run_goes_on(make: Make, layout: str) -> None:
    session = make(layout)
    run_to(session, "running")
    board, own = session.switchboard, session.switchboard.implementation("save_fl")
    waits = iter(range(2000))

    def waiting(cpu: Vcpu) -> int:
        number = next(waits, None)
        if number == 0:
            board.switch("save_fl", own, by="test")
        if number is not None:
            raise Reschedule
        return own.function(cpu)  # type: ignore[misc,no-any-return]

    board.switch("save_fl", waiting, by="test")
    before = session.machine.clock.ns
    assert session.run().reason == "poweroff"
    made, refused = board.history
    assert not made.refused
    assert "vcpu 0 returns into" in refused.refused
    assert "still after" in refused.refused
    assert (refused.new, refused.sites) == ("native.save_fl", 0)
    assert 1_000_000 <= refused.ns - before < 3_000_000
    assert board.implementation("save_fl").function is waiting
    assert any(event.kind == "switch refused" for event in session.machine.log.events)


def test_a_slot_that_the_guest_has_written_is_left_to_it(make: Make) -> None:
    session = make("6.1-64")
    place = CATALOGUE["6.1-64"].by_op("save_fl")
    address = session.guest.symbols[place.symbol] + place.offset
    session.machine.memory.set_u64(session.platform.machine_address(address - session.builtin.kernel_base), 0x1234)
    with pytest.raises(SwitchError, match="was expected"):
        session.switchboard.switch("save_fl", flags, by="test")
    assert slot(session, "save_fl") == 0x1234


def test_a_gate_at_which_a_vcpu_stands_is_not_given_to_another(make: Make) -> None:
    session = make("6.1-64")
    board, own = session.switchboard, session.switchboard.implementation("load_gdt")
    served: list[int] = []

    def waiting(cpu: Vcpu, dtr: int) -> None:
        if not served:
            served.append(0)
            cpu.machine.stop("waiting")
            raise Reschedule
        served.append(1)
        own.function(cpu, dtr)  # type: ignore[misc]

    board.switch("load_gdt", waiting, by="test")
    assert session.run().reason == "waiting"
    board.switch("load_gdt", own, by="test")  # its sites still call through the slot: nobody is inside of what changes
    for number in range(2 * session.builtin.gate_count):
        board.switch("read_cr2", lambda _cpu, number=number: number, by="test")
    board.switch("read_cr2", "native", by="test")
    assert session.run().reason == "poweroff"
    assert served == [0, 1]
