"""The platform as a whole: memory, errors, snapshots, and two runs that are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_lguest.host.abi import Call

from pvops_core.errors import UsageError
from pvops_core.machine import Machine, MachineKind

from .rig import BASE, Host, Program

if TYPE_CHECKING:
    from .conftest import MakeHost
from .platform_rig import platform


@pytest.mark.parametrize("kind", [MachineKind.PAE, MachineKind.X86_64])
def test_only_32_bit_without_pae(kind: MachineKind) -> None:
    with Machine(kind) as machine, pytest.raises(UsageError, match="i386"):
        platform(machine)


def test_only_one_vcpu() -> None:
    with Machine(MachineKind.I386, vcpus=2) as machine, pytest.raises(UsageError, match="one vCPU"):
        platform(machine)


def counting(host: Host) -> Host:
    """A guest that counts, faults pages in, queues calls and takes ticks."""
    host.init()
    host.set(host.member("blocked_interrupts"), 0)
    host.set(host.member("irq_enabled"), 0x200)
    host.gate(32, BASE + 0x104000)
    tick = Program(0x104000).raw("60")
    host.call_code(tick, Call.SET_CLOCKEVENT, 20_000)
    tick.store(host.member("irq_enabled"), 0x200).raw("61cf")
    loop = Program()
    start = loop.here
    loop.op(0xFF05, BASE + 0x140000)
    loop.op(0xA1, BASE + 0x140000).raw("c1e00c25ffff3f00").raw("c780000010c0").raw("01000000")
    loop.raw("e9" + (start - loop.here - 5).to_bytes(4, "little", signed=True).hex())
    host.program(tick).program(loop)
    host.call(Call.SET_CLOCKEVENT, 20_000)
    return host


def run(host: Host) -> tuple[object, ...]:
    """Run a while; what there is to compare afterwards."""
    stop = host.ends(400_000)
    registers = host.vcpu.batch("eax", "esp", "eip", "eflags").read()
    memory = host.machine.memory.array.tobytes()
    return stop, registers, memory, host.machine.log.sha256, dict(host.platform.hypercalls), host.platform.shadow_fills


def test_two_runs_are_the_same(make_host: MakeHost) -> None:
    first = run(counting(make_host(seed=3)))
    assert first == run(counting(make_host(seed=3)))
    assert first[-1] != 0


def test_a_restored_machine_goes_on_as_it_did(make_host: MakeHost) -> None:
    host = counting(make_host())
    host.ends(100_000)
    for pgdir in (0x180000, 0x181000):
        host.machine.memory.write(pgdir, host.machine.memory.read(host.gpgdir, 4096))
    snapshot = host.machine.snapshot()

    def rest() -> tuple[object, ...]:
        for pgdir in (0x180000, 0x181000, host.gpgdir):
            host.call(Call.NEW_PGTABLE, pgdir)
            host.ends(50_000)
        return run(host)

    first = rest()
    host.call(Call.SET_CLOCKEVENT, 0)
    host.call(Call.FLUSH_TLB, 1)
    host.machine.restore(snapshot)
    assert rest() == first


def test_a_dead_guest_stays_dead(host: Host) -> None:
    host.init()
    host.program(Program().raw("0f0b").store(0x140000, 1).hang())
    snapshot = host.machine.snapshot()
    assert host.ends()[0] == "crash"
    host.vcpu.rip += 2
    assert host.ends() == ("crash", "unhandled trap 6 at 0xc0100000 (0x0)")
    assert host.get(0x140000) == 0
    host.machine.restore(snapshot)
    host.vcpu.rip += 2
    assert host.ends(100_000)[0] == "timeout"
    assert host.get(0x140000) == 1


def test_few_frames_only_cost_time(make_host: MakeHost) -> None:
    """When the host runs out of frames it forgets shadows, which come back."""
    host = make_host()
    host.init()
    while host.state.frames.available > 4:
        host.state.frames.take()
    for index in range(12):
        host.user_page(index << 22, 0x170000)
        host.set(host.gpgdir + index * 4, 0x190000 + index * 0x1000 | 7)
        host.set(0x190000 + index * 0x1000, 0x170000 | 7)
    program = Program()
    for index in range(12):
        program.op(0xFF05, index << 22)
    host.program(program.hang())
    assert host.ends(500_000)[0] == "timeout"
    assert host.get(0x170000) == 12
