"""What each of Xen's test payloads is for, with and without a compiler, on a running guest."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator

import pytest

from pvops_core.backends import load_backends
from pvops_core.errors import PvopsError
from pvops_core.livepatch.builtin import live_patches
from pvops_core.livepatch.control.registry import PayloadStatus
from pvops_core.livepatch.errors import LivepatchError, PayloadError
from pvops_core.livepatch.payload.model import Command, State
from pvops_core.session import Session
from tests.livepatch.roles import NOTHING, REPORT, Assembler, Compiler

needs_cc = pytest.mark.skipif(not (shutil.which("cc") and shutil.which("ld")), reason="needs cc and ld")


class Guest:
    """A guest that has booted as far as it takes interrupts, and its payloads by role."""

    def __init__(self, layout: str, maker: type[Assembler | Compiler]) -> None:
        self.session = Session.of_builtin(
            layout, "native", backends=load_backends().backends, cmdline="livepatch", vcpus=2
        )
        self.patches = live_patches(self.session)
        self.registry = self.patches.registry
        self.by = maker(self.session.guest, self.patches.build_id)
        self.session.run(max_ns=300_000)

    def upload(self, *roles: str) -> None:
        depends = self.patches.build_id
        for role in roles:
            self.registry.upload(role, self.by.make(role, depends))
            if role == "hello":
                depends = self.registry.record(role).payload.build_id

    def act(self, role: str, command: Command) -> int:
        self.registry.action(role, command)
        while self.registry.work is not None:
            assert self.session.run(max_ns=1_000).reason == "timeout"
        return self.registry.get(role).rc

    def report(self) -> bytes:
        """How the function that most payloads replace begins now."""
        return self.patches.read(self.session.guest.symbols[REPORT], 16)

    def said(self) -> list[str]:
        """What it has said since this was last asked."""
        console = self.session.platform.console
        lines = console.decode().splitlines()
        console.clear()
        return [line.removeprefix("guest: platform: ") for line in lines if line.startswith("guest: platform: ")]

    def end(self) -> list[str]:
        """Let it come to its end; what it said in that time."""
        self.said()
        assert self.session.run().reason == "poweroff"
        return self.said()


@pytest.fixture(
    params=[
        ("6.1-64", Assembler),
        ("2.6.24", Assembler),
        pytest.param(("6.1-64", Compiler), marks=needs_cc),
    ],
    ids=["assembled", "assembled for i386", "compiled"],
)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    made = Guest(*request.param)
    with made.session:
        yield made


def test_hello_bye_and_a_replacement_of_both(guest: Guest) -> None:
    guest.upload("hello", "bye")
    with pytest.raises(LivepatchError) as refused:
        guest.registry.action("bye", Command.APPLY)
    assert refused.value.errno == errno.EINVAL
    assert guest.act("hello", Command.APPLY) == 0
    assert "hello is being applied" in guest.said()
    assert guest.act("bye", Command.APPLY) == 0
    guest.upload("replace")
    assert guest.act("replace", Command.REPLACE) == 0
    assert "hello is being reverted" in guest.said()
    assert [record.name for record in guest.registry.applied] == ["replace"]
    assert guest.end()[-1] == "Replaced World"


@pytest.mark.parametrize("role", ["hello", "bye"])
def test_who_is_on_top_speaks(guest: Guest, role: str) -> None:
    guest.upload("hello", "bye")
    assert guest.act("hello", Command.APPLY) == 0
    assert guest.act("bye", Command.APPLY) == 0
    if role == "hello":
        assert guest.act("bye", Command.REVERT) == 0
    assert guest.end()[-1] == f"{role.capitalize()} World"


def test_nops_and_back(guest: Guest) -> None:
    guest.upload("nop")
    place = guest.session.guest.symbols[NOTHING]
    before = guest.patches.read(place, 32)
    assert guest.act("nop", Command.APPLY) == 0
    function = guest.registry.record("nop").payload.functions[0]
    assert guest.patches.read(place, len(function.new)) == function.new != before[: len(function.new)]
    assert guest.patches.read(place, function.old_size)[-1] == before[function.old_size - 1]
    assert guest.act("nop", Command.REVERT) == 0
    assert guest.patches.read(place, 32) == before


def test_a_payload_for_no_guest_is_none(guest: Guest) -> None:
    with pytest.raises(PayloadError, match=r"\.livepatch\.xen_depends: is missing") as refused:
        guest.upload("unbound")
    assert refused.value.errno == errno.EINVAL
    assert not guest.registry.records


def test_hooks_before_and_after(guest: Guest) -> None:
    guest.upload("prepost")
    assert guest.act("prepost", Command.APPLY) == 0
    assert guest.act("prepost", Command.REVERT) == 0
    assert guest.said()[-4:] == ["about to apply", "applied", "about to revert", "reverted"]


def test_a_veto(guest: Guest) -> None:
    guest.upload("veto")
    with pytest.raises(LivepatchError) as refused:
        guest.registry.action("veto", Command.APPLY)
    assert refused.value.errno == errno.EPERM
    assert guest.registry.get("veto") == PayloadStatus(State.CHECKED, -errno.EPERM)
    assert guest.said()[-1] == "not with me"


def test_actions_of_its_own(guest: Guest) -> None:
    guest.upload("action", "nofunc")
    text = guest.report()
    assert guest.act("action", Command.APPLY) == 0
    assert guest.report() == text
    assert guest.act("action", Command.REVERT) == 0
    assert guest.act("nofunc", Command.APPLY) == 0
    assert guest.act("nofunc", Command.REVERT) == 0
    assert guest.said()[-4:] == ["marked as applied", "marked as reverted", "nothing to apply", "nothing to revert"]


def test_the_order_of_hooks(guest: Guest) -> None:
    guest.upload("marker")
    assert guest.act("marker", Command.APPLY) == 0
    assert guest.act("marker", Command.REVERT) == 0
    order = ("preapply", "load", "postapply", "prerevert", "unload", "postrevert")
    assert guest.said()[-6:] == [f"marker {phase}" for phase in order]


def test_actions_that_fail_leave_the_state(guest: Guest) -> None:
    guest.upload("noapply", "norevert")
    assert guest.act("noapply", Command.APPLY) == -errno.EINVAL
    assert guest.registry.get("noapply").state is State.CHECKED
    assert guest.act("norevert", Command.APPLY) == 0
    assert guest.act("norevert", Command.REVERT) == -errno.EINVAL
    assert guest.registry.get("norevert").state is State.APPLIED
    assert guest.said()[-3:] == ["will not apply", "will not revert", "still applied"]
    assert guest.end()[-1] == "Norevert World"


def test_what_is_expected(guest: Guest) -> None:
    guest.upload("expecting")
    assert guest.act("expecting", Command.APPLY) == 0
    assert guest.end()[-1] == "Replaced World"


def test_what_is_not_as_expected(guest: Guest) -> None:
    guest.upload("mistaken")
    text = guest.report()
    assert guest.act("mistaken", Command.APPLY) == -errno.EINVAL
    assert guest.report() == text


def test_the_options_of_build_say_what_is_wrong(guest: Guest) -> None:
    from pvops_core.livepatch.payload.compiling import expecting, parse_replacement  # noqa: PLC0415 - of one test

    wrongs: tuple[Callable[[], object], ...] = tuple(
        lambda text=text: expecting([parse_replacement("f")], [text])  # type: ignore[misc]
        for text in ("f", "f=", "f=zz", "g=00", "f=" + "00" * 32)
    )
    for wrong in wrongs:
        with pytest.raises(PvopsError):
            wrong()
    assert guest.registry.records == []
