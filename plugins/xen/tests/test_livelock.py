"""A guest whose handler of events never lets anything else run: the run ends, and says what it saw."""

from __future__ import annotations

import pytest
from pvops_xen.hypervisor.abi import Hypercall
from pvops_xen.hypervisor.scheduling import livelock
from pvops_xen.testing.guests import EVENT, SmallGuest

BIND_IPI, SEND = 7, 4
_BACK = {
    64: "pop rcx\n pop r11\n push 0\n push rcx\n push r11\n push rax\n mov eax, 23\n syscall",
    32: "push eax\n mov eax, 23\n int 0x82",
}
_SEND = {
    64: "mov edi, 4\n mov rsi, {port:#x}\n mov eax, 32\n syscall",
    32: "mov ebx, 4\n mov ecx, {port:#x}\n mov eax, 32\n int 0x82",
}


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("sends", [True, False])
def test_the_handler_is_entered_again_and_again(monkeypatch: pytest.MonkeyPatch, bits: int, *, sends: bool) -> None:
    monkeypatch.setattr(livelock, "PATIENCE", 1000)
    with SmallGuest(bits) as g:
        area = g.put("data", bytes(8))
        assert g.call(Hypercall.EVENT_CHANNEL_OP, BIND_IPI, area) == 0
        state = g.hv.state(g.cpu)
        state.event = type(state.event)(state.event.cs, g.va("probe") + 16, mask_events=True)
        g.hv.memory.write(state.info, b"\1\0")  # pending, not masked
        code = _SEND[bits].format(port=area + 4) if sends else "nop"
        outcome = g.execute(f"1: pause\n jmp 1b\n .balign 16\n {code}\n {_BACK[bits]}", max_ns=10**9)
        assert outcome.kind == "crash"
        times = "1,001" if sends else "2,001"
        assert outcome.detail.startswith(f"live-lock of upcalls: vcpu 0 was interrupted {times} times at ")
        assert hex(g.va("probe"))[:-3] in outcome.detail


@pytest.mark.parametrize("bits", [64, 32])
def test_a_handler_that_takes_its_events_is_none(bits: int) -> None:
    with SmallGuest(bits) as g:
        assert g.execute("1: pause\n jmp 1b", max_ns=10**6).kind == "timeout"
        g.hv.memory.write(g.hv.state(g.cpu).info, b"\1\0")
        assert g.execute("1: pause\n jmp 1b").vector == EVENT
        assert g.hv.state(g.cpu).upcalls_in_row == 0
