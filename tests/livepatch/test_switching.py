"""Live patches beside the other two ways in which text changes: switching, and patching from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import load_backends
from pvops_core.errors import PatchError, SwitchError
from pvops_core.livepatch.builtin import live_patches
from pvops_core.livepatch.payload.builder import PayloadBuilder
from pvops_core.livepatch.payload.model import Command
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.livepatch.control.manager import Livepatch

LAYOUTS = ("2.6.24", "6.1-64")


@pytest.fixture(params=LAYOUTS)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session.of_builtin(request.param, "native", backends=load_backends().backends, cmdline="livepatch") as made:
        yield made


def sites_of(session: Session, op: str) -> list[tuple[int, int]]:
    number = session.layout.by_op(op).type
    return [(site.address, site.length) for site in session.builtin.sites if site.type == number]


def upload(session: Session, livepatch: Livepatch, address: int, size: int) -> None:
    """A payload that makes the text at an address nops, which is as good as anything to lose or keep."""
    guest = livepatch.guest
    made = PayloadBuilder(session.guest.kind, build_id=b"p", depends=guest.build_id, host=guest.build_id)
    made.replace("place", None, old_size=size, new_size=size, old_address=address)
    livepatch.registry.upload("p", made.build())


def drive(session: Session, livepatch: Livepatch, command: Command) -> None:
    livepatch.registry.action("p", command)
    while livepatch.registry.work is not None:
        assert session.run(max_ns=20_000).reason == "timeout"
    assert livepatch.registry.get("p").rc == 0, livepatch.messages


def prepared(session: Session, op: str) -> tuple[Livepatch, int, int]:
    """A guest that has patched itself, and a site of an op in it."""
    livepatch = live_patches(session)
    assert session.run(max_ns=600_000).reason == "timeout"
    address, length = sites_of(session, op)[-1]
    return livepatch, address, length


def test_a_switch_over_an_applied_payload_is_refused_and_changes_nothing(session: Session) -> None:
    livepatch, address, length = prepared(session, "read_cr2")
    upload(session, livepatch, address, length)
    drive(session, livepatch, Command.APPLY)
    text, board = session.text_sha256(), session.switchboard
    before = board.implementation("read_cr2")
    with pytest.raises(SwitchError, match="live patch p has replaced place"):
        board.switch("read_cr2", lambda cpu: cpu.cr2, by="test")
    assert board.implementation("read_cr2") is before
    assert session.text_sha256() == text
    drive(session, livepatch, Command.REVERT)
    board.switch("read_cr2", lambda cpu: cpu.cr2, by="test")
    board.switch("read_cr2", "native", by="test")
    drive(session, livepatch, Command.APPLY)
    drive(session, livepatch, Command.REVERT)
    assert session.run().reason == "poweroff"


def test_patching_everything_over_an_applied_payload_is_refused(session: Session) -> None:
    livepatch, address, length = prepared(session, "read_cr2")
    upload(session, livepatch, address, length)
    drive(session, livepatch, Command.APPLY)
    text = session.text_sha256()
    with pytest.raises(PatchError, match="live patch p"):
        session.switchboard.apply_paravirt()
    with pytest.raises(SwitchError, match="live patch p"):
        session.switchboard.switch("read_cr2", None, by="the payload's nops are what the site would become")
    assert session.text_sha256() == text
    session.switchboard.switch("read_cr3", lambda cpu: cpu.cr3, by="test")
    session.switchboard.switch_backend("native", by="test")
    drive(session, livepatch, Command.REVERT)
    assert session.text_sha256() != text
    assert session.run().reason == "poweroff"


def test_a_switch_inside_a_replaced_function_is_there_after_the_revert(session: Session) -> None:
    """The site lies behind the jump: the switch reaches it, and the revert leaves it as the switch left it."""
    livepatch = live_patches(session)
    assert session.run(max_ns=600_000).reason == "timeout"
    address, length = sites_of(session, "read_cr2")[-1]
    upload(session, livepatch, address - 5, 5)
    drive(session, livepatch, Command.APPLY)
    session.switchboard.switch("read_cr2", lambda cpu: cpu.cr2, by="test")
    now = session.read(address, length)
    drive(session, livepatch, Command.REVERT)
    assert session.read(address, length) == now
    session.switchboard.switch("read_cr2", "native", by="test")
    assert session.run().reason == "poweroff"
