"""Slices that end for the sake of an interrupt: at its time, and not before interrupts are on."""

from __future__ import annotations

from pvops_core.kinds import MachineKind
from pvops_core.machine import BareMetal, Machine, Vcpu
from pvops_core.machine.unicorn.state import BLOCK_NS

CODE = 0x1000
SPIN = bytes.fromhex("ebfe")


class Waiting(BareMetal):
    """Expects an interrupt at a fixed time, and notes when it is asked for it and whether it could be given."""

    def __init__(self, machine: Machine, when: int) -> None:
        super().__init__(machine)
        self.when = when
        self.asked: list[tuple[int, bool]] = []

    def before_entry(self, vcpu: Vcpu) -> None:
        now = self.machine.clock.ns
        self.asked.append((now, vcpu.interrupts_enabled))
        if now >= self.when and vcpu.interrupts_enabled:
            self.machine.stop("given")
        vcpu.expect(self.when)


def run(code: str, when: int, *, max_ns: int = 1_000_000, slice_blocks: int = 50_000) -> Waiting:
    with Machine(MachineKind.X86_64, slice_blocks=slice_blocks) as machine:
        platform = Waiting(machine, when)
        machine.attach(platform)
        machine.memory.write(CODE, bytes.fromhex(code) + SPIN)
        machine.vcpus[0].rip = CODE
        machine.vcpus[0].set("rcx", 10_000)
        machine.run(max_ns=max_ns)
        return platform


def test_a_slice_ends_at_the_time_expected() -> None:
    platform = run("fb", 20_000)  # sti, then a loop for ever
    assert [time for time, _ in platform.asked] == [0, 20_000]


def test_it_goes_on_to_the_first_block_with_interrupts_on() -> None:
    # 10,000 blocks with interrupts off: loop back to itself; then sti
    platform = run("e2fe fb", 20_000)
    (_, first), (time, last) = platform.asked
    assert not first
    assert last
    assert 10_000 * BLOCK_NS <= time <= 10_003 * BLOCK_NS


def test_it_ends_after_all_where_interrupts_stay_off() -> None:
    platform = run("fa", 20_000, max_ns=500_000)
    assert len(platform.asked) >= 2  # asked again, in spite of all
    assert not any(enabled for _, enabled in platform.asked)


def test_time_limits_hold_with_interrupts_off() -> None:
    with Machine(MachineKind.X86_64, slice_blocks=1_000_000) as machine:
        machine.attach(Waiting(machine, 1_000))
        machine.memory.write(CODE, SPIN)
        machine.vcpus[0].rip = CODE
        assert machine.run(max_ns=100_000).reason == "timeout"
        assert 100_000 <= machine.clock.ns <= 100_000 + 2 * BLOCK_NS


def test_an_interrupt_that_is_past_still_lets_the_guest_go_on() -> None:
    platform = run("fa" + "90" * 4, 0, max_ns=200_000, slice_blocks=2_000)
    times = [time for time, _ in platform.asked]
    assert len(times) > 10
    assert times == sorted(set(times))
