from __future__ import annotations

import time

import pytest

from pvops_core.kinds import MachineKind
from pvops_core.machine import BareMetal, Machine
from pvops_core.machine.run.watchdog import run_within, where

START = 0x1000


def symbol_at(address: int) -> tuple[str, int] | None:
    return ("start", address - START) if START <= address < START + 0x100 else None


def machine(code: str, vcpus: int = 1) -> Machine:
    made = Machine(MachineKind.X86_64, memory=1 << 20, vcpus=vcpus)
    made.attach(BareMetal(made))
    made.memory.write(START, bytes.fromhex(code))
    for vcpu in made.vcpus:
        vcpu.rip = START
    return made


# A jump to itself, a loop that reads memory, a repeated string instruction over half of the memory again and again.
@pytest.mark.parametrize("code", ["ebfe", "8a042500100000 ebf7", "fc 31f6 b900000800 f3ac ebf4"])
def test_a_loop_is_ended_by_the_hosts_clock_and_named(code: str) -> None:
    with machine(code) as loop:
        begin = time.monotonic()
        stop = run_within(loop, symbol_at, max_seconds=0.3)
        assert 0.3 <= time.monotonic() - begin < 2
        assert stop.reason == "timeout"
        assert stop.detail.startswith("the wall time allowed is over; vcpu 0 at start+0x")


def test_no_time_at_all_is_a_limit_too() -> None:
    with machine("ebfe") as loop:
        assert run_within(loop, symbol_at, max_seconds=0).reason == "timeout"


def test_a_run_that_ends_by_itself_is_left_alone() -> None:
    with machine("ebfe") as loop:
        stop = run_within(loop, symbol_at, max_ns=1000, max_seconds=60)
        assert stop.detail.endswith("ns of virtual time have passed; vcpu 0 at start+0x0 (0x1000)")
    with machine("f4") as dead:
        stop = run_within(dead, symbol_at, max_seconds=60)
        assert (stop.reason, "vcpu" in stop.detail.split("halted")[0]) == ("dead", False)


def test_every_vcpu_is_named() -> None:
    with machine("ebfe", vcpus=2) as two:
        two.vcpus[1].rip = 0x5000
        two.vcpus[1].halt()
        assert where(two, symbol_at) == "vcpu 0 at start+0x0 (0x1000), vcpu 1 at 0x5000, waiting"
