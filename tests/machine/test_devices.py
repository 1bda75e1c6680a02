"""Registers in the physical address space, and processors that start in real mode."""

from __future__ import annotations

import attrs
import pytest

from pvops_core.errors import MachineError
from pvops_core.kinds import MachineKind
from pvops_core.machine import BareMetal, Machine, Vcpu

PLACE = 0xFEE00000
START = 0x1000


@attrs.define
class Device:
    """Remembers every access; gives its number."""

    accesses: list[tuple[int, str, int, int, int]] = attrs.field(factory=list)
    error: Exception | None = None
    stops: bool = False

    def load(self, vcpu: Vcpu, offset: int, size: int) -> int:
        self.accesses.append((vcpu.index, "load", offset, size, 0))
        if self.error:
            raise self.error
        return len(self.accesses)

    def store(self, vcpu: Vcpu, offset: int, size: int, value: int) -> None:
        self.accesses.append((vcpu.index, "store", offset, size, value))
        if self.stops:
            vcpu.machine.stop("asked")


def machine(code: str, device: Device, kind: MachineKind = MachineKind.X86_64, vcpus: int = 1) -> Machine:
    made = Machine(kind, memory=1 << 20, vcpus=vcpus)
    made.attach(BareMetal(made))
    made.map_device(PLACE, 0x1000, device)
    made.memory.write(START, bytes.fromhex(code))
    for vcpu in made.vcpus:
        vcpu.rip = START
    return made


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE])
def test_loads_and_stores_reach_the_device_in_order(kind: MachineKind) -> None:
    device = Device()
    # mov ebx, PLACE; mov eax, [ebx+0x10]; mov [ebx+0x20], eax; mov [ebx+0x31], al; movzx ecx, word [ebx+0x42]; jmp .
    with machine("bb0000e0fe 8b4310 894320 884331 0fb74b42 ebfe", device, kind) as subject:
        subject.run(max_ns=10_000)
        assert device.accesses == [
            (0, "load", 0x10, 4, 0),
            (0, "store", 0x20, 4, 1),
            (0, "store", 0x31, 1, 1),
            (0, "load", 0x42, 2, 0),
        ]
        assert subject.vcpus[0].get("ecx") == 4


def test_each_vcpu_is_told_apart() -> None:
    device = Device()
    with machine("bb0000e0fe 8b4310 ebfe", device, vcpus=2) as subject:
        subject.run(max_ns=200_000)
    assert sorted(access[0] for access in device.accesses) == [0, 1]


def test_an_access_that_stops_the_run_is_made_once() -> None:
    device = Device(stops=True)
    # mov ebx, PLACE; l: mov [ebx], ebx; jmp l
    with machine("bb0000e0fe 891b ebfc", device) as subject:
        assert subject.run(max_ns=100_000).reason == "asked"
        assert len(device.accesses) == 1
        assert subject.run(max_ns=100_000).reason == "asked"
        assert len(device.accesses) == 2


def test_an_error_of_the_device_ends_the_run() -> None:
    with (
        machine("bb0000e0fe 8b03 ebfe", Device(error=ValueError("broken"))) as subject,
        pytest.raises(ValueError, match="broken"),
    ):
        subject.run(max_ns=100_000)


@pytest.mark.parametrize("kind", list(MachineKind))
def test_running_into_registers_is_the_guests_crash(kind: MachineKind) -> None:
    device = Device()
    with machine("bb0000e0fe ffe3", device, kind) as subject:  # mov ebx, PLACE; jmp rbx
        stop = subject.run(max_ns=100_000)
    assert (stop.reason, stop.detail) == ("crash", "vcpu 0 at 0xfee00000: fetch from a device's registers")
    assert not device.accesses


def test_a_place_that_is_memory_is_refused() -> None:
    with machine("ebfe", Device()) as subject, pytest.raises(MachineError, match="map device failed"):
        subject.map_device(0, 0x1000, Device())


@pytest.mark.parametrize("kind", list(MachineKind))
def test_real_mode_begins_as_after_a_start_up_message(kind: MachineKind) -> None:
    with machine("ebfe", Device(), kind) as subject:
        cpu = subject.vcpus[0]
        cpu.set("eax", 7)
        cpu.halt()
        cpu.start_real_mode(0x9A)
        assert not cpu.halted
        assert (cpu.cr0, cpu.cr3, cpu.cr4, cpu.get("eax"), cpu.rip) == (0x60000010, 0, 0, 0, 0)
        assert cpu.segment("cs")[:3] == (0x9A00, 0x9A000, 0xFFFF)
        assert (cpu.cpl, cpu.interrupts_enabled, cpu.long_mode) == (0, False, False)
        # 16-bit code: mov ax, cs; mov [0x10], ax with DS 0; near call and return; jmp .
        subject.memory.write(0x9A000, bytes.fromhex("8cc8 a31000 bc0070 e80200 ebfe c3"))
        subject.run(max_ns=10_000)
        assert subject.memory.u16(0x10) == 0x9A00
        assert cpu.rip == 0x0B
