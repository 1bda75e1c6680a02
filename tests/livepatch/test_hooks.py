"""Hooks run as guest code, when they should, and what they return counts."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.payload.builder import ABSOLUTE, PayloadBuilder, Reference
from pvops_core.livepatch.payload.model import Command, HookPhase, State
from tests.livepatch.conftest import NEW, NEWER, PLAIN, VERSION, VERSION_CODE, Make, Patched, returning

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind

LOG = 0x31000
"""Where hooks note that they ran: a count, then a word for each, of its number in the order of phases."""


def noting(number: int, result: int = 0) -> bytes:
    """``log[++count] = number; return result``, for both widths."""
    # mov ecx, LOG; inc dword [ecx]; mov edx, [ecx]; mov dword [ecx + edx*4], number; mov eax, result; ret
    head = b"\xb9" + LOG.to_bytes(4, "little") + b"\xff\x01\x8b\x11\xc7\x04\x91" + number.to_bytes(4, "little")
    return head + b"\xb8" + struct.pack("<i", result) + b"\xc3"


def log(made: Patched) -> list[HookPhase]:
    """The phases whose hooks have run since the last look."""
    memory = made.rig.memory
    count = memory.u32(LOG)
    memory.set_u32(LOG, 0)
    return [list(HookPhase)[memory.u32(LOG + 4 * index)] for index in range(1, count + 1)]


def hooked(made: Patched, results: dict[HookPhase, int], name: bytes = b"hooked") -> PayloadBuilder:
    """A payload with a hook for each of these phases."""
    builder = made.builder(name)
    builder.text(f"{name.decode()}_version", returning(NEW))
    builder.replace("version", f"{name.decode()}_version", old_size=len(VERSION_CODE))
    for phase, result in results.items():
        symbol = f"{name.decode()}_{phase.value}"
        builder.text(symbol, noting(list(HookPhase).index(phase), result))
        builder.hook(phase, symbol)
    return builder


def test_order(kind: MachineKind, patched: Make) -> None:
    made = patched(kind, 2)
    phases = [phase for phase in HookPhase if phase not in {HookPhase.APPLY, HookPhase.REVERT}]
    made.registry.upload("hooked", hooked(made, dict.fromkeys(phases, 0)).build())
    assert made.act("hooked", Command.APPLY) == 0
    assert log(made) == [HookPhase.PREAPPLY, HookPhase.LOAD, HookPhase.POSTAPPLY]
    assert made.stored() == {NEW}
    assert made.act("hooked", Command.REVERT) == 0
    assert log(made) == [HookPhase.PREREVERT, HookPhase.UNLOAD, HookPhase.POSTREVERT]
    assert made.stored() == {PLAIN}


def test_load_hooks_find_the_old_text_and_unload_hooks_too(patched: Make) -> None:
    made = patched(vcpus=2)
    made.run()
    builder = made.builder(b"looking")
    builder.text("new_version", returning(NEW))
    builder.replace("version", "new_version", old_size=len(VERSION_CODE))
    # call version; mov [LOG], eax; ret
    look = b"\xe8\0\0\0\0\x89\x04\x25" + LOG.to_bytes(4, "little") + b"\xc3"
    builder.text("look", look, [Reference(1, "version", 2, -4)])
    builder.hook(HookPhase.LOAD, "look")
    builder.hook(HookPhase.UNLOAD, "look")
    made.registry.upload("looking", builder.build())
    for command in (Command.APPLY, Command.REVERT):
        made.rig.memory.set_u32(LOG, 0)
        assert made.act("looking", command) == 0
        assert made.rig.memory.u32(LOG) == PLAIN


def test_all_hooks_of_a_table_run_in_order(patched: Make) -> None:
    made = patched()
    builder = hooked(made, {HookPhase.LOAD: 0})
    builder.text("second", noting(5))
    builder.hook(HookPhase.LOAD, "second")
    made.registry.upload("hooked", builder.build())
    made.act("hooked", Command.APPLY)
    assert log(made) == [HookPhase.LOAD, list(HookPhase)[5]]


def test_a_veto(patched: Make) -> None:
    made = patched()
    made.registry.upload("hooked", hooked(made, {HookPhase.PREAPPLY: -errno.EPERM, HookPhase.POSTAPPLY: 0}).build())
    before = made.code()
    with pytest.raises(LivepatchError) as caught:
        made.registry.action("hooked", Command.APPLY)
    assert caught.value.errno == errno.EPERM
    assert log(made) == [HookPhase.PREAPPLY]
    made.run()
    assert made.code() == before
    assert made.registry.get("hooked").rc == -errno.EPERM


@pytest.mark.parametrize("vcpus", [1, 2])
def test_user_mode_is_no_place_for_hooks_so_they_get_the_kernel_s(vcpus: int, patched: Make) -> None:
    made = patched(vcpus=vcpus)
    made.rig.code("ebfe", 0x18000)
    for vcpu in made.machine.vcpus:
        vcpu.insn.lgdt(0x1000, 0x47)
        vcpu.set_segments(3, 0x23, 0x1B)
        vcpu.rip, vcpu.interrupts_enabled = 0x18000, True
    made.rig.gate(14, 0x14000)
    made.machine.vcpus[0].set_table("tr", 0x4000, 0x67, 0x38, 0x8B00)
    builder = made.builder(b"priv")
    builder.text("privileged", b"\x0f\x20\xc0\xb8\0\0\0\0\xc3")  # mov rax, cr0; mov eax, 0; ret
    builder.hook(HookPhase.PREAPPLY, "privileged")
    builder.hook(HookPhase.LOAD, "privileged")
    made.registry.upload("priv", builder.build())
    assert made.act("priv", Command.APPLY) == 0
    assert [vcpu.cpl for vcpu in made.machine.vcpus] == [3] * vcpus


def test_a_hook_that_hangs_ends_and_nothing_is_patched(patched: Make) -> None:
    made = patched()
    builder = hooked(made, {})
    builder.text("hang", b"\xeb\xfe")
    builder.hook(HookPhase.LOAD, "hang")
    made.registry.upload("hooked", builder.build())
    before = made.code()
    assert made.act("hooked", Command.APPLY) == -errno.ETIMEDOUT
    assert made.code() == before
    assert made.stored() == {PLAIN}


def test_an_unload_hook_that_hangs_leaves_the_payload_applied(patched: Make) -> None:
    made = patched()
    builder = hooked(made, {})
    builder.text("hang", b"\xeb\xfe")
    builder.hook(HookPhase.UNLOAD, "hang")
    made.registry.upload("hooked", builder.build())
    assert made.act("hooked", Command.APPLY) == 0
    assert made.act("hooked", Command.REVERT) == -errno.ETIMEDOUT
    assert made.registry.get("hooked").state is State.APPLIED
    assert made.stored() == {NEW}


def marking(made: Patched, applied: int, result: int = 0) -> bytes:
    """An action hook that sets ``fstate[0].applied`` of the payload it is given."""
    if made.guest.machine.kind.bits == 64:
        # mov rax, [rdi+32]; mov byte [rax+1], applied; mov eax, result; ret
        return b"\x48\x8b\x47\x20\xc6\x40\x01" + bytes([applied]) + b"\xb8" + struct.pack("<i", result) + b"\xc3"
    # mov eax, [eax+24]; …
    return b"\x8b\x40\x18\xc6\x40\x01" + bytes([applied]) + b"\xb8" + struct.pack("<i", result) + b"\xc3"


def test_action_hooks_that_only_mark(kind: MachineKind, patched: Make) -> None:
    made = patched(kind, 2)
    builder = hooked(made, {})
    builder.text("mark", marking(made, 1))
    builder.text("unmark", marking(made, 0))
    builder.hook(HookPhase.APPLY, "mark")
    builder.hook(HookPhase.REVERT, "unmark")
    made.registry.upload("hooked", builder.build())
    before = made.code()
    assert made.act("hooked", Command.APPLY) == 0
    assert made.registry.get("hooked").state is State.APPLIED
    assert made.code() == before
    assert made.act("hooked", Command.REVERT) == 0
    assert made.registry.get("hooked").state is State.CHECKED


@pytest.mark.parametrize(("phase", "state"), [(HookPhase.APPLY, State.CHECKED), (HookPhase.REVERT, State.APPLIED)])
def test_action_hooks_that_fail(phase: HookPhase, state: State, patched: Make) -> None:
    made = patched()
    made.registry.upload("hooked", hooked(made, {phase: -errno.EINVAL}).build())
    made.act("hooked", Command.APPLY)
    made.act("hooked", Command.REVERT)
    assert made.registry.get("hooked").state is state
    assert made.registry.get("hooked").rc == -errno.EINVAL
    assert log(made) == [phase]


@pytest.mark.parametrize("vcpus", [1, 3])
def test_a_replace_whose_payload_refuses_leaves_everything_reverted(vcpus: int, patched: Make) -> None:
    made = patched(vcpus=vcpus)
    before = made.code()
    made.upload("hello", NEW)
    made.upload("bye", NEWER, depends=b"hello")
    made.registry.upload("hooked", hooked(made, {HookPhase.APPLY: -errno.ENOSPC}).build())
    made.act("hello", Command.APPLY)
    made.act("bye", Command.APPLY)
    assert made.act("hooked", Command.REPLACE) == -errno.ENOSPC
    assert [record.state for record in made.registry.records] == [State.CHECKED] * 3
    assert [made.registry.get(name).rc for name in ("hello", "bye")] == [0, 0]
    assert not made.registry.applied
    assert made.code() == before
    assert made.stored() == {PLAIN}
    assert any("aborted after reverting ALL payloads" in message for message in made.livepatch.messages)


def test_a_replace_goes_no_further_than_a_payload_that_will_not_go(patched: Make) -> None:
    made = patched()
    made.registry.upload("hooked", hooked(made, {HookPhase.REVERT: -errno.EINVAL}).build())
    made.upload("bye", NEWER, depends=b"hooked")
    made.upload("other", 0x44444444)
    made.act("hooked", Command.APPLY)
    hooked_only = made.code()
    made.act("bye", Command.APPLY)
    assert made.act("other", Command.REPLACE) == -errno.EINVAL
    assert [record.state for record in made.registry.records] == [State.APPLIED, State.CHECKED, State.CHECKED]
    assert [record.name for record in made.registry.applied] == ["hooked"]
    assert made.code() == hooked_only
    assert not any("INSECURE" in message for message in made.livepatch.messages)


def test_a_fault_while_an_aborted_replace_settles_leaves_all_as_it_was(patched: Make) -> None:
    made = patched()
    made.upload("hello", NEW)
    made.registry.upload("hooked", hooked(made, {HookPhase.APPLY: -errno.ENOSPC}).build())
    made.act("hello", Command.APPLY)
    before = made.code()

    def fail(_step: object) -> None:
        raise MachineError("injected")

    made.poker.observer = fail
    assert made.act("hooked", Command.REPLACE) == -errno.EIO
    made.poker.observer = lambda _step: None
    assert made.code() == before
    assert made.registry.get("hello").state is State.APPLIED
    assert made.stored() == {NEW}


def test_a_hook_that_says_what_is_not_true_ends_the_guest(patched: Make) -> None:
    made = patched()
    made.registry.upload("hooked", hooked(made, {HookPhase.APPLY: 0}).build())
    made.registry.action("hooked", Command.APPLY)
    stop = made.machine.run(max_ns=20_000)
    assert stop.reason == "crash"
    assert "partially applied payload 'hooked'!" in stop.detail


def test_a_payload_without_functions(patched: Make) -> None:
    made = patched()
    builder = made.builder(b"nofunc")
    builder.text("hook", noting(0))
    builder.hook(HookPhase.LOAD, "hook")
    builder.data("pointer", bytes(8), [Reference(0, "hook", ABSOLUTE[64])])
    made.registry.upload("nofunc", builder.build())
    assert made.act("nofunc", Command.APPLY) == 0
    assert log(made) == [HookPhase.LOAD]
    assert made.act("nofunc", Command.REVERT) == 0
    made.registry.action("nofunc", Command.APPLY)
    assert made.registry.get("nofunc").rc == -errno.EINVAL, "it has data"


def test_hooks_see_state_and_result(patched: Make) -> None:
    made = patched()
    builder = hooked(made, {})
    # mov eax, [rdi+8]; mov [LOG], eax; mov eax, [rdi+12]; mov [LOG+4], eax; ret
    save = b"\x8b\x47\x08\x89\x04\x25" + LOG.to_bytes(4, "little") + b"\x8b\x47\x0c\x89\x04\x25"
    builder.text("look", save + (LOG + 4).to_bytes(4, "little") + b"\xc3")
    builder.hook(HookPhase.POSTAPPLY, "look")
    made.registry.upload("hooked", builder.build())

    def fail(_step: object) -> None:
        raise LivepatchError("no", errno=errno.ENOSPC)

    made.poker.observer = fail
    assert made.act("hooked", Command.APPLY) == -errno.ENOSPC
    assert struct.unpack("<Ii", made.rig.memory.read(LOG, 8)) == (1, -errno.ENOSPC)
    made.poker.observer = lambda _step: None
    assert made.act("hooked", Command.APPLY) == 0
    assert struct.unpack("<Ii", made.rig.memory.read(LOG, 8)) == (2, 0)
    assert made.rig.memory.read(VERSION, 1) == b"\xe9"
