"""A backend's own hooks in a kernel that fills its own table, on one of a few hundred bytes that patches itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import Backend, Environment, OwnFunction
from pvops_core.errors import PluginError, SwitchError, UsageError
from pvops_core.guests import Kernel
from pvops_core.hookspecs import hookimpl
from pvops_core.session import Session
from pvops_core.switchboard import KERNEL
from tests.session.selfpatching import CELL
from tests.session.test_ophooks import Make, patching

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine import Vcpu


class Ops:
    """Counts, answers, and leaves every second write to the kernel."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.seen: list[int] = []

    @hookimpl
    def read_cr3(self) -> int:
        """A number of its own."""
        return 7

    @hookimpl
    def write_cr3(self, cpu: Vcpu, cr3: int) -> None:
        """Every second is the kernel's."""
        self.seen.append(cr3)
        if len(self.seen) == 2:
            raise OwnFunction("the second")
        cpu.set("rbx", cr3)

    @hookimpl
    def write_cr2(self) -> None:
        """A fault of its author's, in a kernel."""
        if self.env.guest.own_functions:
            raise ValueError


MINE = Backend(name="mine", api=2, base="native", ops=Ops, together=(frozenset({"read_cr3", "write_cr3"}),))


@pytest.fixture
def make(backends: dict[str, Backend]) -> Iterator[Make]:
    with ExitStack() as stack:

        def session(image: KernelImage, *links: Backend) -> Session:
            made = Session(Kernel(image), (*links, backends["native"]), memory=32 << 20)
            return stack.enter_context(made)

        yield session


@pytest.mark.parametrize("place", ["", "start_kernel", "patched"])
def test_a_backend_s_hooks_serve_the_kernel_s_ops(make: Make, place: str) -> None:
    plain, session = make(patching()), make(patching(), MINE)
    if place:
        session.run_to(place)
    assert session.ops.use("mmu.write_cr3") == ("mmu.read_cr3", "mmu.write_cr3"), "they share state"
    assert [session.run().reason, plain.run().reason] == ["poweroff"] * 2
    assert session.machine.memory.u32(CELL) == 7
    assert session.machine.vcpus[0].get("rbx") == 0x1234
    hooks = {hook.op: hook for hook in session.hooks.standing}
    assert (hooks["write_cr3"].calls, hooks["read_cr3"].calls) == (2, 1)
    assert hooks["write_cr3"].passed == {"the second": 1}
    assert session.text.sha256(session.hooks.text_without()) == plain.text_sha256() != session.text_sha256()


def test_without_a_name_all_that_backend_and_bases_have_is_used(make: Make) -> None:
    session = make(patching(), MINE)
    used = session.ops.use()
    assert {"mmu.write_cr3", "irq.save_fl", "lock.queued_spin_unlock"} <= set(used)
    assert "lock.kick" not in used, "a nop is the kernel's own"
    assert session.ops.implementation("write_cr3").name == "mine.write_cr3"
    assert session.ops.implementation("save_fl").name == "native.save_fl"
    session.run_to("patched")
    session.hooks.remove(*session.hooks.standing)
    assert session.ops.implementation("save_fl").backend == KERNEL


def test_an_op_goes_from_one_to_the_other_and_back(make: Make) -> None:
    session = make(patching(), MINE)
    session.run_to("patched")
    before = session.text_sha256()
    for wanted in ("mine", "native", lambda _cpu: None, "mine", KERNEL):
        session.ops.switch("write_cr3", wanted, by="test")
    assert session.text_sha256() == before
    names = [(switch.old.partition(".")[0], switch.new.partition(".")[0]) for switch in session.ops.history]
    assert names[-5:][0][1] == "mine"
    assert len(names) == 5


@pytest.mark.parametrize(
    ("patterns", "backend", "error", "why"),
    [
        (("write_cr33",), "", UsageError, "did you mean write_cr3"),
        (("mmu.nothing*",), "", UsageError, "no op"),
        (("write_cr3",), "xen", SwitchError, "no such backend here; there are mine, native, kernel"),
    ],
)
def test_what_cannot_be_used_is_refused(
    make: Make, patterns: tuple[str, ...], backend: str, error: type[Exception], why: str
) -> None:
    session = make(patching(), MINE)
    with pytest.raises(error, match=why):
        session.ops.use(*patterns, backend=backend)
    assert not session.hooks.standing


def test_what_its_author_did_wrong_names_the_hook(make: Make) -> None:
    session = make(patching(), MINE)
    session.ops.use("write_cr2")
    session.run_to("patched")
    cpu = session.machine.vcpus[0]
    with pytest.raises(PluginError, match=r"mine\.write_cr2 raised ValueError"):
        session.calls.plain(cpu, session.calls.op("write_cr2", 0))


def test_an_op_cannot_be_left_to_a_guest_that_has_none(backends: dict[str, Backend]) -> None:
    class Leaving:
        def __init__(self, _env: Environment) -> None:
            pass

        @hookimpl
        def io_delay(self) -> None:
            raise OwnFunction("always")

    known = {**backends, "mine": Backend(name="mine", api=2, base="native", ops=Leaving)}
    refused = pytest.raises(PluginError, match=r"mine\.io_delay raised OwnFunction: always")
    with Session.of_builtin("2.6.24", "mine", backends=known) as session, refused:
        session.run()
