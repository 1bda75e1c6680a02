"""The host's state: all of it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugins.lguest.tests.rig import Host


def test_what_is_saved_is_what_is_loaded(host: Host) -> None:
    state = host.platform.state
    state.ts, state.next_hcall = True, 7
    state.stack.esp1 = 0xC0008000
    state.interrupts.raise_irq(3)
    state.output += b"printed"
    saved = state.save()
    output = state.output
    state.ts, state.next_hcall = False, 0
    state.stack.esp1 = 0
    state.output += b" more"
    state.load(saved)
    assert state.save() == saved
    assert state.output is output
    assert (state.ts, state.next_hcall, state.stack.esp1) == (True, 7, 0xC0008000)
