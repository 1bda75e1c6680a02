"""The built-in guest on its platforms, live-patched while it boots and works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import load_backends
from pvops_core.errors import UsageError
from pvops_core.livepatch.builtin import live_patches
from pvops_core.livepatch.payload.builder import ABSOLUTE, RELATIVE, PayloadBuilder, Reference
from pvops_core.livepatch.payload.model import Command, HookPhase
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.livepatch.control.manager import Livepatch

PAIRS = [("native", "6.1-64"), ("native", "2.6.24"), ("native", "2.6.23-lapic-pae"), ("lguest", "2.6.24")]
PAIRS += [("xen", "6.1-64"), ("xen", "2.6.24-pae")]


@pytest.fixture(params=PAIRS, ids="-".join)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    backend, layout = request.param
    with Session.of_builtin(layout, backend, backends=load_backends().backends, cmdline="livepatch") as made:
        yield made


def identity(livepatch: Livepatch) -> PayloadBuilder:
    guest = livepatch.guest
    return PayloadBuilder(guest.machine.kind, build_id=b"p", depends=guest.build_id, host=guest.build_id)


def drive(session: Session, livepatch: Livepatch, command: Command) -> int:
    livepatch.registry.action("p", command)
    while livepatch.registry.work is not None:
        assert session.run(max_ns=10_000).reason == "timeout"
    return livepatch.registry.get("p").rc


def test_patched_and_reverted_at_work_it_does_what_it_does_unpatched(session: Session) -> None:
    """``memset`` is replaced by one that does the same in another way; the guest's digest must not change."""
    livepatch = live_patches(session)
    made = identity(livepatch)
    # mov r8, rdi; mov rcx, rdx; mov eax, esi; rep stosb; mov rax, r8; ret
    wide = "4989f8 4889d1 89f0 f3aa 4c89c0 c3"
    # push edi; mov edi, eax; push eax; mov eax, edx; rep stosb; pop eax; pop edi; ret
    narrow = "57 89c7 50 89d0 f3aa 58 5f c3"
    made.text("new_memset", bytes.fromhex(wide if session.guest.kind.bits == 64 else narrow))
    made.replace("memset", "new_memset", old_size=15)
    livepatch.registry.upload("p", made.build())
    assert session.run(max_ns=300_000).reason == "timeout"
    rounds = 0
    while session.run(max_ns=200_000).reason == "timeout":
        rounds += 1
        assert drive(session, livepatch, Command.APPLY) == 0, livepatch.messages
        session.run(max_ns=50_000)
        assert drive(session, livepatch, Command.REVERT) == 0, livepatch.messages
        if rounds == 5:
            break
    assert rounds == 5
    assert session.run().reason == "poweroff"
    with Session.of_builtin(session.builtin.layout, "native", backends=load_backends().backends) as plain:
        assert plain.run().reason == "poweroff"
        assert plain.report().results == session.report().results


def test_hooks_run_in_the_guest_s_kernel_wherever_its_vcpu_is(session: Session) -> None:
    """A load hook stores a byte that only the kernel may, many times, user mode included."""
    livepatch = live_patches(session)
    made = identity(livepatch)
    made.data("hook_count", bytes(8))
    if session.guest.kind.bits == 64:
        made.text("hook", bytes.fromhex("ff0500000000c3"), [Reference(2, "hook_count", RELATIVE[64], -4)])
    else:
        made.text("hook", bytes.fromhex("ff0500000000c3"), [Reference(2, "hook_count", ABSOLUTE[32])])
    made.hook(HookPhase.LOAD, "hook")
    made.hook(HookPhase.UNLOAD, "hook")
    livepatch.registry.upload("p", made.build())
    calls, cpu, rounds = livepatch.guest.calls, session.machine.vcpus[0], 0
    while rounds < 5 and session.run(max_ns=300).reason == "timeout":
        if calls.in_user_mode(cpu) and calls.interruptible(cpu):
            place = cpu.rip, cpu.rsp, cpu.cpl
            for command in (Command.APPLY, Command.REVERT):
                livepatch.registry.action("p", command)
                session.machine.run(max_ns=0)
                assert livepatch.registry.get("p").rc == 0, livepatch.messages
                assert (cpu.rip, cpu.rsp, cpu.cpl) == place
                assert calls.in_user_mode(cpu)
            livepatch.registry.action("p", Command.UNLOAD)
            livepatch.registry.upload("p", made.build())
            rounds += 1
    assert rounds
    assert session.run().reason == "poweroff"


def test_without_the_word_there_is_no_room() -> None:
    with (
        Session.of_builtin("2.6.24", "native", backends=load_backends().backends) as made,
        pytest.raises(UsageError, match="livepatch"),
    ):
        live_patches(made)
