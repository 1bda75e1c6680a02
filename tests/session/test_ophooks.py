"""Python hooks in a running kernel's ops, on a kernel of a few hundred bytes that patches itself as the test says."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from pvops_core.errors import PatchError, PluginError, StructureError, SwitchError, UsageError
from pvops_core.guests import Kernel
from pvops_core.machine import GuestFault, Vcpu
from pvops_core.ops import LAYOUTS, Arg, CType
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.session import Session
from pvops_core.switchboard import KERNEL, Form
from pvops_core.testing.kernels import Alternative
from tests.session.selfpatching import CELL, SelfPatching, Writes

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.guest.types.structs import Structures
    from pvops_core.images import KernelImage
    from pvops_core.ops import Slot

SITES = ("mmu.write_cr3", "mmu.read_cr3", "mmu.write_cr3")
ARGUMENT = bytes.fromhex("bf34120000")  # mov edi, 0x1234
KEEP = bytes.fromhex("890425000f0001")  # mov [CELL], eax
BODY = (ARGUMENT, 0, 1, KEEP, 2)
Make = Callable[..., Session]


def small() -> SelfPatching:
    """Its last site is inlined, as bare metal's are."""
    kernel = SelfPatching.of(*SITES)
    kernel.alternatives = [Alternative(2, 272, inverted=True, code=bytes.fromhex("0f22df"))]
    return kernel


def patching(slot_writes: tuple[tuple[str, bytes], ...] = (), entry: int = 0) -> KernelImage:
    """A kernel that patches itself as planned, writing these slots before; its inlined write_cr3 is nops here.

    With a hook's entry in the slot of write_cr3 it calls that.
    """
    plan = plan_kernel(read_kernel(small().build()), [], 1)
    table, layout = plan.kernel.slot_addresses[0], plan.kernel.layout
    slots = [(table + 8 * layout.by_path(path).type, data) for path, data in slot_writes]
    paravirt = [(planned.site.address, planned.paravirt) for planned in plan.sites]
    if entry:
        first = plan.sites[0].site.address
        paravirt[0] = first, b"\xe8" + struct.pack("<i", entry - first - 5) + b"\x90"
    inlined = plan.sites[2].site.address, bytes.fromhex("0f1f00 0f1f00")
    writes: Writes = {"apply_paravirt": slots + paravirt, "alternative_instructions": [inlined]}
    return small().build(writes, BODY)


@pytest.fixture
def make(backends: dict[str, Backend]) -> Iterator[Make]:
    with ExitStack() as stack:

        def session(image: KernelImage, **settings: object) -> Session:
            made = Session(Kernel(image), (backends["native"],), memory=32 << 20, **settings)  # type: ignore[arg-type]
            return stack.enter_context(made)

        yield session


def text(session: Session) -> str:
    return session.text_sha256()


@pytest.mark.parametrize("place", ["start_kernel", "patched"])
def test_a_hook_sees_every_call_whatever_the_site_has_become(make: Make, place: str) -> None:
    session, seen = make(patching()), []
    session.run_to(place)
    hook = session.hooks.install("write_cr3", lambda cpu, cr3: seen.append((cpu.index, cr3)))
    assert session.run().reason == "poweroff"
    assert seen == [(0, 0x1234), (0, 0x1234)]
    assert (hook.calls, hook.replaced, hook.originals) == (2, 0, ["native_write_cr3"])
    assert hook.sites == 2


def test_a_hook_that_was_there_before_the_kernel_patched_is_put_in_again(make: Make) -> None:
    session = make(patching())
    hook = session.hooks.install("mmu.write_cr3", lambda _cpu: None)
    built = session.text.read(session.kernel.image.section(".init.text").address, 6)  # type: ignore[union-attr]
    session.run_to("patched")
    assert (hook.calls, hook.sites) == (0, 2)
    session.run()
    assert (hook.calls, hook.sites) == (2, 2)
    assert session.text.read(session.kernel.image.section(".init.text").address, 6) == built  # type: ignore[union-attr]
    actions = [dict(event.fields)["action"] for event in session.machine.log if event.kind == "hook"]
    assert actions == ["in", "again"]


@pytest.mark.parametrize(("answer", "kept"), [(7, 7), (0, 0), (None, 0)])
def test_a_result_is_in_place_of_the_kernel_s_own(make: Make, answer: int | None, kept: int) -> None:
    session = make(patching())
    hook = session.hooks.install("read_cr3", lambda _cpu: answer)
    session.run_to("patched")
    session.machine.vcpus[0].set("rax", 0)
    session.run()
    assert session.machine.memory.u32(CELL) == kept
    assert (hook.calls, hook.replaced) == (1, 0 if answer is None else 1)


def test_taken_out_everything_is_as_without_it(make: Make) -> None:
    plain, session = make(patching()), make(patching())
    for each in (plain, session):
        each.run_to("patched")
    before = text(session)
    slot = session.table.slot("write_cr3")  # type: ignore[union-attr]
    target = session.table.target(slot)  # type: ignore[union-attr]
    for _ in range(3):
        hook = session.hooks.install("write_cr3", lambda _cpu: 1)
        assert text(session) != before
        assert session.hooks.standing == (hook,)
        session.hooks.remove(hook)
        session.hooks.remove(hook)
        assert text(session) == before
        assert session.table.target(slot) == target  # type: ignore[union-attr]
    assert not session.hooks.standing
    for each in (plain, session):
        assert each.run().reason == "poweroff"
    assert not hook.calls
    assert text(plain) == text(session)
    assert not session.slots.history  # type: ignore[union-attr]  # our writes are none of the kernel's


def test_taken_out_nothing_leads_to_it_though_the_kernel_patched_its_sites_with_it(make: Make) -> None:
    entry = make(patching()).hooks.install("write_cr3", lambda _cpu: None).entry
    session, plain = make(patching(entry=entry)), make(patching())
    hook = session.hooks.install("write_cr3", lambda _cpu: None)
    for each in (session, plain):
        each.run_to("patched")
    assert hook.kept[min(hook.kept)][:1] == b"\xe8"
    session.hooks.remove(hook)
    start = session.kernel.image.section(".init.text").address  # type: ignore[union-attr]
    assert session.text.read(start, 24) == plain.text.read(start, 24)
    assert session.run().reason == "poweroff"
    assert not hook.calls


def test_where_modules_were_patched_meanwhile_the_entry_stays_a_jump(make: Make) -> None:
    session = make(patching())
    hook = session.hooks.install("write_cr3", lambda _cpu: None)
    session.run_to("patched")
    vcpu, apply = session.machine.vcpus[0], session.kernel.image.symbols["apply_paravirt"]
    session.machine.break_at(apply, Vcpu.ret)  # a module without sites
    vcpu.push(vcpu.rip)
    vcpu.rip = apply
    session.run_to("machine_power_off")
    session.hooks.remove(hook)
    assert session.text.read(hook.entry, 1) == b"\xe9"
    assert session.hooks.install("write_cr3", lambda _cpu: None).entry != hook.entry


def test_a_hook_may_take_itself_out(make: Make) -> None:
    session = make(patching())

    def once(_cpu: Vcpu) -> None:
        session.hooks.remove(hook)

    hook = session.hooks.install("write_cr3", once)
    assert session.run().reason == "poweroff"
    assert hook.calls == 1
    assert not session.hooks.standing


def test_a_hook_may_put_another_in(make: Make) -> None:
    session, seen = make(patching()), []
    session.hooks.install("write_cr3", lambda _cpu: session.hooks.standing[1:] or more())

    def more() -> None:
        session.hooks.install("read_cr3", lambda _cpu: seen.append("read"))

    assert session.run().reason == "poweroff"
    assert seen == ["read"]


def test_what_the_kernel_writes_into_a_hooked_slot_is_what_the_hook_stands_in_front_of(make: Make) -> None:
    plan = plan_kernel(read_kernel(small().build()), [], 1)
    other = plan.kernel.image.symbols["native_write_cr4"]
    image = patching((("mmu.write_cr3", other.to_bytes(8, "little")),))
    session = make(image)
    hook = session.hooks.install("write_cr3", lambda _cpu: None)
    session.run()
    assert hook.originals == ["native_write_cr3", "native_write_cr4"]
    assert session.table.target(hook.slot) == hook.entry  # type: ignore[union-attr]
    switches = [(each.op, each.old, each.new) for each in session.slots.history]  # type: ignore[union-attr]
    assert switches == [("write_cr3", "native_write_cr3", "native_write_cr4")]
    session.hooks.remove(hook)
    assert session.table.target(hook.slot) == other  # type: ignore[union-attr]


def test_a_switch_by_the_kernel_is_in_the_log_without_any_hook(make: Make) -> None:
    plan = plan_kernel(read_kernel(small().build()), [], 1)
    other = plan.kernel.image.symbols["native_write_cr4"]
    session = make(patching((("mmu.write_cr3", other.to_bytes(8, "little")),)))
    session.run()
    (event,) = [event for event in session.machine.log if event.kind == "switch"]
    fields = {"op": "write_cr3", "old": "native_write_cr3", "new": "native_write_cr4", "by": "kernel", "sites": 0}
    assert dict(event.fields) == fields


def test_snapshots_know_which_hooks_stand(make: Make) -> None:
    session = make(patching())
    assert not session.hooks.standing
    session.run_to("patched")
    before = session.machine.snapshot()
    hook = session.hooks.install("write_cr3", lambda _cpu: None)
    with_hook = session.machine.snapshot()
    session.run()
    assert hook.calls == 2
    session.hooks.remove(hook)
    session.machine.restore(with_hook)
    assert hook.calls == 0
    session.run()
    assert hook.calls == 2
    session.machine.restore(before)
    assert not session.hooks.standing
    session.run()
    again = session.hooks.install("write_cr3", lambda _cpu: None)
    assert again.entry == hook.entry


def test_errors_in_a_hook_are_named(make: Make) -> None:
    session = make(patching())

    def broken(_cpu: Vcpu) -> None:
        raise LookupError("no such luck")

    session.hooks.install("write_cr3", broken)
    with pytest.raises(PluginError, match=r"hook write_cr3, .*broken raised LookupError: no such luck"):
        session.run()


def test_a_fault_in_a_hook_is_the_guest_s(make: Make) -> None:
    session = make(patching())

    def faulting(_cpu: Vcpu) -> None:
        raise GuestFault("no", vector=13, error_code=0)

    session.hooks.install("write_cr3", faulting)
    assert session.run().reason == "crash"  # it has no table of handlers


@pytest.mark.parametrize(
    ("op", "function", "error", "message"),
    [
        ("write_cr9", lambda _cpu: None, UsageError, "no op 'write_cr9'"),
        ("write_cr3", lambda: None, SwitchError, "takes no argument; the first is the vCPU"),
        ("write_cr3", lambda _cpu, colour: colour, SwitchError, "takes 'colour'; the op's arguments are cr3"),
        ("write_cr3", 5, SwitchError, "not callable"),
    ],
)
def test_what_cannot_be_a_hook_is_refused(
    make: Make, op: str, function: Callable[..., None], error: type[Exception], message: str
) -> None:
    session = make(patching())
    before = text(session)
    with pytest.raises(error, match=message):
        session.hooks.install(op, function)
    assert text(session) == before
    assert not session.hooks.standing


def test_an_op_that_only_the_kernels_types_know_is_hooked_by_its_own_prototype(make: Make) -> None:
    """No specification says what its hooks take, nor what those of a known op do that is called otherwise."""
    table = LAYOUTS["6.1-64"]

    def changed(slot: Slot) -> Slot:
        if slot.path == "mmu.write_cr3":
            return attrs.evolve(slot, path="mmu.write_root", op=attrs.evolve(slot.op, name="write_root"))
        args = (Arg("one", CType("u64")), Arg("two", CType("u32")))
        return attrs.evolve(slot, op=attrs.evolve(slot.op, args=args)) if slot.path == "mmu.write_cr2" else slot

    layout = attrs.evolve(table, slots=tuple(changed(slot) for slot in table.slots))
    kernel = SelfPatching(layout, [layout.by_path(path).type for path in ("mmu.write_root", "mmu.write_cr2")])
    kernel.typed = True
    session, seen = make(kernel.build(body=(ARGUMENT, 0, bytes.fromhex("be05000000"), 1))), []
    session.hooks.install("write_root", lambda _cpu, arg1: seen.append(arg1))
    session.hooks.install("write_cr2", lambda _cpu, arg2, arg1: seen.append((arg1, arg2)) or 0)
    for op, name in (("write_root", "arg1"), ("write_cr2", "arg1, arg2")):
        with pytest.raises(SwitchError, match=f"takes 'cr2'; the op's arguments are {name}"):
            session.hooks.check(op, lambda _cpu, cr2: cr2)
    session.run()
    assert seen == [0x1234, (0x1234, 5)]


def test_a_hook_that_asks_for_it_is_given_the_kernels_memory_by_its_types(make: Make) -> None:
    kernel = SelfPatching.of(*SITES)
    kernel.typed = True
    session, seen = make(kernel.build(body=BODY)), []

    def note(_cpu: Vcpu, guest: Structures, cr3: int) -> None:
        table = guest.struct("paravirt_patch_template", "pv_ops")
        seen.append((cr3, int(table.mmu.write_cr3), int(table.mmu.read_cr3)))

    hook = session.hooks.install("write_cr3", note)
    session.run()
    assert seen == [(0x1234, hook.entry, session.kernel.image.symbols["native_read_cr3"])] * 2


def test_a_kernel_without_types_has_none_to_give(make: Make) -> None:
    session = make(patching())
    before = text(session)
    with pytest.raises(StructureError, match="has no type information"):
        session.hooks.install("write_cr3", lambda _cpu, guest: guest)
    assert text(session) == before
    assert not session.hooks.standing


@pytest.mark.parametrize(("layout", "patcher"), [("6.1-64", "apply_paravirt"), ("7.2-64", "apply_alternatives")])
@pytest.mark.parametrize("of_module", [False, True])
def test_the_entry_stays_where_a_modules_sites_may_have_been_patched(
    make: Make, layout: str, patcher: str, *, of_module: bool
) -> None:
    """What patches is called once more, with records of the kernel's own (a vDSO's) or from elsewhere."""
    kernel = SelfPatching.of(*SITES, layout=layout)
    kernel.typed = True
    functions = {} if patcher == "apply_paravirt" else {patcher: b"\xc3"}

    def calling(function: int, records: int) -> KernelImage:
        code = b"\xbf" + struct.pack("<I", records) + b"\xb8" + struct.pack("<I", function) + b"\xff\xd0"
        return kernel.build(body=(code, 0), functions=functions)

    first = calling(0, 0)
    own = first.section(".altinstructions") or first.section(".parainstructions")
    assert own is not None
    session = make(calling(first.symbols[patcher], CELL + (32 << 20) if of_module else own.address))
    hook = session.hooks.install("write_cr3", lambda _cpu: 1)
    assert session.run().reason == "poweroff"
    assert (hook.calls, hook.spread) == (1, of_module)
    session.hooks.remove(hook)
    assert (session.text.read(hook.entry, 1) == b"\xe9") == of_module


def test_an_op_has_one_hook_at_a_time(make: Make) -> None:
    session = make(patching())
    session.hooks.install("write_cr3", lambda _cpu: None)
    with pytest.raises(SwitchError, match="has a hook already"):
        session.hooks.install("mmu.write_cr3", lambda _cpu: None)


def test_text_that_is_not_as_it_should_be_is_left_alone(make: Make) -> None:
    session = make(patching())
    hook = session.hooks.install("write_cr3", lambda _cpu: None)
    session.machine.memory.write(hook.entry, b"\x90")
    with pytest.raises(PatchError, match="expected"):
        session.hooks.remove(hook)
    assert session.hooks.standing == (hook,)


def test_a_kernel_without_a_table_has_no_hooks(make: Make) -> None:
    with pytest.raises(SwitchError, match="no table of ops"):
        _ = make(SelfPatching.of().build()).hooks


def test_its_ops_are_switched_as_those_of_every_guest(make: Make) -> None:
    session, seen = make(patching()), []
    session.run_to("patched")
    before, own = text(session), session.ops.implementation("write_cr3")
    assert (own.name, own.backend, own.form) == ("native_write_cr3", KERNEL, Form.GUEST)

    def first(_cpu: Vcpu, cr3: int) -> None:
        seen.append(cr3)

    session.ops.switch("write_cr3", first, by="test")
    hooked = text(session)
    session.ops.switch("write_cr3", lambda _cpu: 1, by="another")
    assert text(session) == hooked != before, "the entry is the same"
    session.ops.switch("mmu.write_cr3", first, by="test")
    session.machine.vcpus[0].set("rax", 0)
    assert session.run().reason == "poweroff"
    assert (seen, session.ops.calls["write_cr3"]) == ([0x1234, 0x1234], 2)
    session.ops.switch("write_cr3", own, by="test")
    session.ops.switch("write_cr3", KERNEL, by="test")
    again = session.ops.implementation("write_cr3")
    assert (again.name, again.form) == (own.name, own.form)
    names = [(switch.old.split(".")[-1], switch.new.split(".")[-1], switch.by) for switch in session.ops.history]
    assert names == [
        ("native_write_cr3", "first", "test"),
        ("first", "<lambda>", "another"),
        ("<lambda>", "first", "test"),
        ("first", "native_write_cr3", "test"),
    ]


@pytest.mark.parametrize(
    ("wanted", "why"),
    [(None, "can be a function, or its own"), ("xen", "no such backend here; there are native, kernel"), (5, "can be")],
)
def test_what_a_kernel_s_op_cannot_be_is_refused(make: Make, wanted: Any, why: str) -> None:  # noqa: ANN401
    session = make(patching())
    with pytest.raises(SwitchError, match=why):
        session.ops.switch("write_cr3", wanted, by="test")
    assert not session.ops.history


@pytest.mark.parametrize("place", ["start_kernel", "patched"])
def test_another_function_of_the_kernel_s_is_called_whatever_the_site_has_become(make: Make, place: str) -> None:
    session = make(small().build(body=(ARGUMENT, 1, KEEP), functions={"other": bytes.fromhex("b807000000c3")}))
    session.run_to(place)
    session.ops.switch("read_cr3", "kernel:other", by="test")
    switch = session.ops.history[-1]
    assert (switch.op, switch.new, switch.by) == ("read_cr3", "other", "test")
    assert session.ops.implementation("read_cr3").name == "other"
    session.run()
    assert session.machine.memory.u32(CELL) == 7


def test_what_a_kernel_has_not_got_cannot_be_called(make: Make) -> None:
    session = make(patching())
    session.run_to("start_kernel")
    with pytest.raises(SwitchError, match="no such function"):
        session.ops.switch("read_cr3", "kernel:nosuch", by="test")
    session.hooks.install("read_cr3", lambda _cpu: None)
    with pytest.raises(SwitchError, match="has a hook"):
        session.ops.switch("read_cr3", "kernel:native_write_cr3", by="test")
