"""A host made without a session, and loops that wait for interrupts."""

from __future__ import annotations

from .rig import BASE, Host, Program

HANDLER = 0x104000
OUT = 0x140000
ON = 0x200


def looping(host: Host, *, enabled: int = ON) -> Program:
    """A guest that counts in memory for ever, with a timer handler that stores a mark and returns."""
    host.init()
    host.set(host.member("blocked_interrupts"), 0)
    host.set(host.member("irq_enabled"), enabled)
    host.gate(32, BASE + HANDLER)
    host.program(Program(HANDLER).op(0xFF05, BASE + OUT).store(host.member("irq_enabled"), ON).raw("cf"))
    return Program().op(0xFF05, BASE + OUT + 4).raw("ebf8")
