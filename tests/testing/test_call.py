"""Calls: arguments and results of every shape, detours that leave no trace, and calls that do not come back."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError, UsageError
from pvops_core.hookspecs.markers import HookDeprecationWarning
from pvops_core.testing.call import Caller, CallError
from pvops_core.testing.points import run_to

if TYPE_CHECKING:
    from pvops_core.hookspecs.platform import HypercallMade

    from pvops_core.machine import Vcpu
    from pvops_core.session import Session
    from pvops_core.testing.patched import PatchCaller
    from pvops_core.testing.textpage import TextPage


@pytest.mark.pvops_layouts("*")
def test_arguments_arrive_and_results_come_back_as_the_prototype_says(call: Caller, session: Session) -> None:
    """Each op of the table once, in the place of its hook a function that takes down its arguments."""
    board, layout = session.switchboard, session.layout
    for slot in layout.slots:
        op = slot.op
        if op.is_data or op.convention.value == "jump" or op.name == "patch":
            continue
        values = [0x1122334455667788 * (n + 3) & (1 << arg.bits(layout.kind)) - 1 for n, arg in enumerate(op.args)]
        result = 0x8877665544332211 & ((1 << op.result.bits(layout.kind)) - 1 if op.result else 0)
        taken: list[int] = []
        names = ", ".join(arg.name for arg in op.args)
        scope = {"taken": taken, "result": result}
        exec(f"def hook(cpu, {names}):\n taken.extend([{names}])\n return result", scope)
        board.switch(op.name, scope["hook"], by="test")  # type: ignore[arg-type]
        done = call(op.name, *values)
        cut = [value & (1 << arg.bits(layout.kind)) - 1 for arg, value in zip(op.args, taken, strict=True)]
        assert cut == values, op.name
        assert done.result == result, op.name
        assert not done.changes, op.name


@pytest.mark.pvops_backends("native", "xen", "lguest")
def test_a_call_is_a_detour(call: Caller, session: Session) -> None:
    for op in ("save_fl", "io_delay", "read_cr3"):
        call(op)
    call.page()
    assert session.run(max_ns=2_000_000_000).reason == "poweroff"


@pytest.mark.pvops_kinds("i386", "x86_64")
def test_what_a_hook_does_to_registers_and_memory_is_seen(call: Caller, session: Session) -> None:
    place = session.guest.symbols["empty_zero_page"]

    def hook(cpu: Vcpu) -> None:
        cpu.set("ebx" if session.guest.kind.bits == 32 else "rbx", 5)
        cpu.set("eax" if session.guest.kind.bits == 32 else "r11", 6)
        cpu.rflags |= 0x400
        cpu.set_word(place + 16, 0xABC0)
        cpu.flush_tlb()

    session.switchboard.switch("io_delay", hook, by="test")
    done = call("io_delay")
    assert set(done.changes.registers) == {"ebx" if session.guest.kind.bits == 32 else "rbx", "rflags"}
    assert set(done.changes.memory) == {place + 16}
    assert done.changes[place + 16].new == 0xABC0
    assert done.flushes == 1
    assert "0xabc0" in repr(done.changes)


@pytest.mark.pvops_at("op:pagetable_reserve")
@pytest.mark.pvops_kinds("x86_64")
def test_an_event_gives_its_particulars_by_name(call: Caller, vcpu: Vcpu, session: Session) -> None:
    first, end = (vcpu.u64(session.guest.symbols[f"pgt_buf_{name}"]) for name in ("start", "end"))
    done = call("pagetable_reserve", first << 12, end << 12)
    (event,) = done.events_of("memblock-reserve")
    assert (event["start"], event["end"]) == (first << 12, end << 12)
    with pytest.raises(KeyError, match="'begin'; memblock-reserve has end, start"):
        event["begin"]
    assert done.events_of("no such kind") == ()


@pytest.mark.pvops_kinds("x86_64")
def test_a_call_that_does_not_come_back_says_why(call: Caller, session: Session) -> None:
    def hook(cpu: Vcpu) -> None:
        cpu.set_word(0x5000, 1)

    session.switchboard.switch("io_delay", hook, by="test")
    with pytest.raises(CallError, match=r"io_delay did not come back: crash .*vector 14.*address 0x5000"):
        call("io_delay")


@pytest.mark.pvops_kinds("x86_64")
def test_refused_wants_a_fault(call: Caller) -> None:
    with pytest.raises(AssertionError, match="it was to be refused"):
        call.refused("io_delay")
    fault = call.refused("write_cr0", 1 << 31)
    assert fault.vector == 13


@pytest.mark.pvops_kinds("i386")
def test_what_cannot_be_called_is_refused(call: Caller, patch: PatchCaller, text_page: TextPage) -> None:
    for op in ("no_such_op", "iret"):
        with pytest.raises(UsageError):
            call(op)
    with pytest.raises(UsageError, match="write_cr3: argument 1 is '5', which is no whole number"):
        call("write_cr3", "5")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="io_delay takes no argument; 1 is given"):
        call("io_delay", 1)
    given = r"set_debugreg takes 2 arguments \(.*\); 1 is given, and those left out are 0"
    with pytest.warns(HookDeprecationWarning, match=given) as warned:
        call("set_debugreg", 0)
    assert warned[0].filename == __file__
    with pytest.raises(UsageError, match=r"no symbol .no_such_function."):
        call.function("no_such_function")
    with pytest.raises(UsageError, match="none of number 99"):
        patch.site("io_delay", 99)
    with pytest.raises(UsageError, match="room for"):
        text_page.run(bytes(500))


@pytest.mark.pvops_kinds("i386")
def test_code_of_ones_own_runs_in_the_text_page(text_page: TextPage, vcpu: Vcpu) -> None:
    vcpu.set("eax", 5)
    text_page.run(b"\x40\x40")
    assert vcpu.get("eax") == 7
    with pytest.raises(CallError, match="did not come to its end"):
        text_page.run(b"\xeb\xfe")


@pytest.mark.pvops_at("entry")
@pytest.mark.pvops_kinds("i386")
def test_points_are_reached_or_named(session: Session) -> None:
    start = session.machine.snapshot()
    with pytest.raises(UsageError, match="no point"):
        run_to(session, "nowhere")
    session.machine.restore(start)
    with pytest.raises(MachineError, match="did not come to lguest_iret"):
        run_to(session, "lguest_iret")
    for point in ("unpatched", "patched", "running", "finished", "op:time_init"):
        session.machine.restore(start)
        run_to(session, point)
        assert session.machine.clock.ns


@pytest.mark.pvops_kinds("i386")
def test_patch_words_say_no(patch: PatchCaller) -> None:
    with pytest.raises(AssertionError, match=r"irq_disable is 'cli', not 'sti'"):
        patch("irq_disable").assembles_to("sti")
    with pytest.raises(AssertionError, match="3 bytes do not fit into 2"):
        patch("write_cr3").fits(2)
    assert patch("flush_tlb_user").form in {"call", "inlined"}


@pytest.mark.pvops_backends("xen")
@pytest.mark.pvops_kinds("x86_64")
def test_any_number_may_look_at_hypercalls(call: Caller, session: Session) -> None:
    mine: list[HypercallMade] = []
    other: list[HypercallMade] = []
    session.platform.observe(mine.append)
    session.platform.observe(other.append)
    snapshot, root = session.machine.snapshot(), call("read_cr3").result
    done = call("write_cr3", root)
    assert [(made.name, made.inner) for made in done.made] == [
        ("mmuext_op", True),
        ("mmuext_op", True),
        ("multicall", False),
    ]
    assert done.multicalls == done.made[:2]
    assert mine == other == list(done.made)
    session.platform.ignore(other.append)
    session.machine.restore(snapshot)
    assert [made.result for made in call("write_cr3", root).made] == [0, 0, 0]
    assert len(mine) == 2 * len(other)
    session.platform.ignore(mine.append)
    assert not session.platform.observers


@pytest.mark.pvops_backends("xen", "lguest")
@pytest.mark.pvops_at("entry")
def test_every_hypercall_that_is_counted_is_told_of(session: Session) -> None:
    """Those of a whole guest, multicalls and queued ones among them."""
    told: Counter[str] = Counter()
    session.platform.observe(lambda made: told.update([made.name]))
    assert session.run(max_ns=2_000_000_000).reason == "poweroff"
    assert told
    counted = Counter(session.platform.hypercalls)
    assert not told - counted
    assert (counted - told).total() <= 1, "the one that ends a guest has no result"
