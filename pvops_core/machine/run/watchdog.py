"""Runs a machine for no longer than some time of the host's clock, and says where its vCPUs are when that is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.machine import Machine
    from pvops_core.machine.run.stops import Stop

SymbolAt = Callable[[int], tuple[str, int] | None]
"""Gives the symbol at or below a guest-virtual address, and the distance to it."""


def run_within(
    machine: Machine,
    symbol_at: SymbolAt,
    *,
    max_ns: int | None = None,
    max_seconds: float | None = None,
    step: Collection[Vcpu] = (),
) -> Stop:
    """Run a machine until something stops it; an end for the reason "timeout" says where each vCPU is.

    Args:
        machine: what to run.
        symbol_at: names addresses.
        max_ns: virtual nanoseconds after which it is stopped, if any.
        max_seconds: seconds of the host's time after which it is stopped, if any: at the end of the slice that is going
            on then, a millisecond or so. Such a run cannot be repeated exactly.
        step: it is stopped when one of these has executed one instruction in its turn.
    """
    with _watched(machine, max_seconds):
        stop = machine.run(max_ns=max_ns, step=step)
    if stop.reason != "timeout":
        return stop
    return attrs.evolve(stop, detail=f"{stop.detail}; {where(machine, symbol_at)}")


def where(machine: Machine, symbol_at: SymbolAt) -> str:
    """Where each vCPU is, by symbol: "vcpu 0 at default_idle+0x13 (0xffffffff…), waiting"."""
    return ", ".join(_place(vcpu, symbol_at) for vcpu in machine.vcpus)


def _place(vcpu: Vcpu, symbol_at: SymbolAt) -> str:
    rip = vcpu.rip
    if vcpu.halted and not rip:  # as Xen and PCs leave processors that no guest has brought up
        return f"vcpu {vcpu.index} has not been started"
    found = symbol_at(rip)
    name = f"{found[0]}+{found[1]:#x} ({rip:#x})" if found else f"{rip:#x}"
    return f"vcpu {vcpu.index} at {name}{', waiting' if vcpu.halted else ''}"


@contextmanager
def _watched(machine: Machine, seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return

    def over() -> None:
        # Without a lock: a flag is set, which the run loop looks at between slices.
        if not machine.unhurried:
            machine.stop("timeout", "the wall time allowed is over")

    timer = threading.Timer(seconds, over)
    # Must not hold up the end of the process when a run was ended by an error.
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
