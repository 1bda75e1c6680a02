"""Ports that float are answered by the engine's own callback, and only for as long as the platform's word holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.machine.conftest import CODE, HANDLERS

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

READS = 1000
LOOP = "b9e8030000 e460 66ed ed ffc9 75f9 f4".replace(" ", "")
"""mov ecx, 1000; in al, 0x60; then a thousand times: in ax, dx; in eax, dx; dec ecx; jnz; hlt."""


class Ports:
    """Answers reads with all ones, and lets ports float from the first on."""

    def __init__(self, rig: Rig) -> None:
        self.asked: list[tuple[int, int]] = []
        self.told: list[int] = []
        rig.platform.io_in = self.read  # type: ignore[method-assign]

    def read(self, vcpu: Vcpu, port: int, size: int) -> int:
        self.asked.append((port, size))
        vcpu.stub_ports(self.told.append)
        return (1 << 8 * size) - 1


def test_floating_ports_read_as_all_ones_and_are_counted(rig: Rig) -> None:
    ports = Ports(rig)
    rig.cpu.set("rax", 0)
    rig.code("e460 89c3 66e561 89c6 e562 89c7 f4")  # in al; ebx = eax; in ax; esi = eax; in eax; edi = eax
    assert rig.run() == "poweroff"
    assert [rig.cpu.get(name) for name in ("rbx", "rsi", "rdi")] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    assert ports.asked == [(0x60, 1)]
    assert ports.told == [2]
    assert rig.machine.counts["port_reads"] == 3


def test_a_slice_ends_the_floating(rig: Rig) -> None:
    ports = Ports(rig)
    rig.code(LOOP)
    assert rig.run() == "poweroff"
    assert rig.machine.counts["port_reads"] == 1 + 2 * READS
    assert len(ports.asked) + sum(ports.told) == 1 + 2 * READS
    assert len(ports.told) == len(ports.asked)


def test_whoever_moves_the_vcpu_ends_it(rig: Rig) -> None:
    ports = Ports(rig)
    rig.gate(3, HANDLERS)
    rig.code("e464 f4", HANDLERS)
    rig.code("e460 e461 cc", CODE)  # in al, 0x60; in al, 0x61; int3
    assert rig.run() == "poweroff"
    assert ports.asked == [(0x60, 1), (0x64, 1)]
    assert ports.told == [1, 0]


def test_the_platform_may_take_its_word_back(rig: Rig) -> None:
    ports = Ports(rig)
    rig.platform.cpuid = lambda vcpu, *_: (vcpu.unstub_ports(), (0, 0, 0, 0))[1]  # type: ignore[method-assign]
    rig.code("e460 e461 0fa2 e462 f4")
    assert rig.run() == "poweroff"
    assert ports.asked == [(0x60, 1), (0x62, 1)]
    assert ports.told == [1, 0]
