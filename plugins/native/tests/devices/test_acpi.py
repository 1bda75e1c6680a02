"""The fixed ACPI registers: timer and events."""

from __future__ import annotations

from pvops_native.devices.acpi import PM1_EVENT, PM_TIMER, TIMER_HZ, AcpiRegisters


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
