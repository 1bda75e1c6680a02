"""What Linux finds on bare metal: boot parameters, ACPI tables and registers, the state at its entry."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest
from pvops_native import apics
from pvops_native.devices.acpi import PM1_EVENT, PM_TIMER, TIMER_HZ, AcpiRegisters
from pvops_native.linux import acpi, loader, pvh
from pvops_native.platform import NativePlatform

from pvops_core.errors import ImageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.testing.images import ElfBuilder

MEMORY = 32 << 20
SPIN = bytes.fromhex("ebfe")


@pytest.fixture(params=[64, 32])
def platform(request: pytest.FixtureRequest) -> Iterator[NativePlatform]:
    bits = request.param
    builder = ElfBuilder(bits, 0x1000000)
    builder.text(".text", SPIN)
    kernel = Kernel(load_image(builder.build()), b"RAMDISK", "console=ttyS0 nopti")
    with Machine(MachineKind.X86_64 if bits == 64 else MachineKind.PAE, memory=MEMORY) as machine:
        built = NativePlatform(machine, kernel)
        machine.attach(built)
        built.build()
        yield built


def test_boot_parameters_lead_to_everything(platform: NativePlatform) -> None:
    memory, vcpu = platform.machine.memory, platform.machine.vcpus[0]
    page = vcpu.get("rsi")
    assert memory.read(page + 0x202, 4) == b"HdrS"
    assert memory.u16(page + 0x1FE) == 0xAA55
    cmdline = memory.read(memory.u32(page + 0x228), 100).split(b"\0")[0]
    assert cmdline == b"console=ttyS0 nopti"
    start, size = memory.u32(page + 0x218), memory.u32(page + 0x21C)
    assert memory.read(start, size) == b"RAMDISK"
    ranges = [struct.unpack("<QQI", memory.read(page + 0x2D0 + 20 * i, 20)) for i in range(memory.u8(page + 0x1E8))]
    assert [kind for _, _, kind in ranges] == [1, 2, 1]
    assert ranges[-1][0] + ranges[-1][1] == MEMORY
    assert all(first + size <= second for (first, size, _), (second, _, _) in itertools.pairwise(ranges))
    assert memory.u64(page + 0x70) == acpi.BASE


def test_the_entry_state_is_the_protocol_s(platform: NativePlatform) -> None:
    vcpu = platform.machine.vcpus[0]
    assert vcpu.rip == 0x1000000
    assert (vcpu.cpl, vcpu.interrupts_enabled) == (0, False)
    assert vcpu.segment("cs")[:2] == (loader.CODE, 0)
    for name in ("ds", "es", "ss"):
        assert vcpu.segment(name)[:2] == (loader.DATA, 0)
    if platform.machine.kind is MachineKind.X86_64:
        assert vcpu.in_64_bit_code
        for address in (0, 0x1000000, 0xFFE00000):
            assert vcpu.walk(address).pa == address
    else:
        assert not vcpu.cr0 >> 31
        assert not vcpu.long_mode


@pytest.mark.parametrize("bits", [64, 32])
def test_an_image_that_is_no_linux_is_entered_where_its_note_says(bits: int) -> None:
    builder = ElfBuilder(bits, 0x1000000)
    builder.text(".text", SPIN + bytes.fromhex("8b03 ebfe"))  # mov eax, [ebx]; jmp .
    builder.notes(("Xen", 18, (0x1000002).to_bytes(4, "little")))
    kernel = Kernel(load_image(builder.build()), b"RAMDISK", "some words")
    with Machine(MachineKind.X86_64 if bits == 64 else MachineKind.PAE, memory=MEMORY) as machine:
        built = NativePlatform(machine, kernel)
        machine.attach(built)
        built.build()
        vcpu, memory = machine.vcpus[0], machine.memory
        assert (vcpu.rip, vcpu.cr0, vcpu.long_mode, vcpu.interrupts_enabled) == (0x1000002, 0x11, False, False)
        assert vcpu.segment("cs")[1:3] == (0, 0xFFFFFFFF)
        info = vcpu.get("ebx")
        magic, version, _, modules = struct.unpack("<IIII", memory.read(info, 16))
        assert (magic, version, modules) == (0x336EC578, 1, 1)
        module, cmdline, rsdp, ranges, count = struct.unpack("<QQQQI", memory.read(info + 16, 36))
        assert memory.read(*struct.unpack("<QQ", memory.read(module, 16))) == b"RAMDISK"
        assert memory.read(cmdline, 11) == b"some words\0"
        assert memory.read(rsdp, 8) == b"RSD PTR "
        found = [struct.unpack("<QQII", memory.read(ranges + 24 * index, 24)) for index in range(count)]
        assert [kind for _, _, kind, _ in found] == [1, 2, 1]
        assert found[-1][0] + found[-1][1] == MEMORY
        machine.run(max_ns=1000)
        assert vcpu.get("eax") == magic


def test_a_note_without_an_address_is_named() -> None:
    builder = ElfBuilder(64, 0x1000000)
    builder.text(".text", SPIN)
    builder.notes(("Xen", 18, b"\1\0"))
    image = load_image(builder.build())
    with pytest.raises(ImageError, match="PHYS32_ENTRY"):
        pvh.entry_of(image)


def test_acpi_tables_are_whole(platform: NativePlatform) -> None:
    memory = platform.machine.memory
    assert memory.read(acpi.BASE, 8) == b"RSD PTR "
    assert sum(memory.read(acpi.BASE, 20)) & 0xFF == 0

    def table(address: int, signature: bytes) -> bytes:
        data = memory.read(address, memory.u32(address + 4))
        assert data[:4] == signature
        assert sum(data) & 0xFF == 0
        return data

    rsdt = table(memory.u32(acpi.BASE + 16), b"RSDT")
    fadt = table(struct.unpack_from("<I", rsdt, 36)[0], b"FACP")
    madt = table(struct.unpack_from("<I", rsdt, 40)[0], b"APIC")
    assert struct.unpack_from("<II", madt, 36) == (apics.LOCAL, 1)
    kinds, at = [], 44
    while at < len(madt):
        kinds.append(madt[at])
        at += madt[at + 1]
    assert (kinds, at) == ([0] * len(platform.machine.vcpus) + [1, 2, 4], len(madt))
    assert len(fadt) == 244
    facs, dsdt = struct.unpack_from("<II", fadt, 36)
    assert memory.read(facs, 4) == b"FACS"
    assert facs % 64 == 0
    assert b"_S5_" in table(dsdt, b"DSDT")
    assert struct.unpack_from("<H", fadt, 46) == (acpi.SCI,)
    assert struct.unpack_from("<I", fadt, 56) == (PM1_EVENT,)
    assert struct.unpack_from("<I", fadt, 64) == (0x604,)
    assert struct.unpack_from("<I", fadt, 76) == (PM_TIMER,)
    assert (fadt[88], fadt[89], fadt[91], fadt[108]) == (4, 2, 4, 0x32)
    flags = struct.unpack_from("<I", fadt, 112)[0]
    assert flags & 1 << 10  # the reset register is there
    assert not flags & 1 << 20  # not hardware-reduced: the 8259s are
    assert struct.unpack_from("<BBBBQB", fadt, 116) == (1, 8, 0, 1, 0xCF9, 6)


def test_the_power_management_timer_counts_at_its_rate() -> None:
    now = 0
    device = AcpiRegisters(lambda: now)

    def timer() -> int:
        return sum(device.read(PM_TIMER + at) << 8 * at for at in range(4))

    assert timer() == 0
    now = 1_000_000_000
    assert timer() == TIMER_HZ
    now *= 5_000
    assert timer() == TIMER_HZ * 5_000 % (1 << 32)


def test_event_registers_keep_enables_and_have_no_event() -> None:
    device = AcpiRegisters(lambda: 0)
    for port in range(PM1_EVENT, PM1_EVENT + 4):
        device.write(port, 0xA5)
    assert [device.read(port) for port in range(PM1_EVENT, PM1_EVENT + 4)] == [0, 0, 0xA5, 0xA5]


def test_ticks_come_in_time_to_a_loop_that_only_reads_memory() -> None:
    # IDT with one gate at vector 0x20; 8259 at 0x20; 8254 counter 0 periodic; sti; then a loop that reads memory.
    # The handler counts in rbx, acknowledges and returns.
    setup = (
        "b011 e620 b020 e621 b004 e621 b001 e621 b0fe e621"  # ICW1..ICW4, all masked but request 0
        "b034 e643 b09c e640 b02e e640"  # mode 2, 0x2e9c pulses: 9,999 us
        "31db 0f011c2500700000 fb"  # xor ebx, ebx; lidt [0x7000]; sti
        "8b042500000001 ebf7"  # mov eax, [0x1000000]; jmp back
    )
    code = bytes.fromhex(setup)
    handler = bytes.fromhex("ffc3 50 b020 e620 58 48cf")
    builder = ElfBuilder(64, 0x1000000)
    builder.text(".text", code)
    kernel = Kernel(load_image(builder.build()))
    with Machine(MachineKind.X86_64, memory=MEMORY, slice_blocks=1_000_000) as machine:
        built = NativePlatform(machine, kernel)
        machine.attach(built)
        built.build()
        machine.memory.write(0x7000, struct.pack("<HQ", 0xFFF, 0x7800))
        gate = struct.pack("<HHBBHII", 0x7100, loader.CODE, 0, 0x8E, 0, 0, 0)
        machine.memory.write(0x7800 + 16 * 0x20, gate)
        machine.memory.write(0x7100, handler)
        machine.vcpus[0].rsp = 0x7F00
        stop = machine.run(max_ns=200_000_000)
        assert stop.reason == "timeout"
        assert machine.vcpus[0].get("rbx") in {19, 20}
        times = [event.ns for event in machine.log.events if event.kind == "interrupt"]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(9_990_000 < gap < 10_010_000 for gap in gaps)
