"""The ACPI tables of the PC: enough for Linux to find its processors, power-off, reset and timer registers.

Source: ACPI specification 6.4, 5.2.5 (RSDP), 5.2.7 (RSDT), 5.2.9 (FADT), 5.2.10 (FACS), 5.2.12 (MADT), 7.4.2 (_S5),
20.2 (AML).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_native import apics
from pvops_native.board import IRQ_TIMER, PIN_TIMER
from pvops_native.devices.acpi import PM1_EVENT, PM_TIMER
from pvops_native.devices.cmos import CENTURY
from pvops_native.devices.power import PM1_CONTROL, RESET_CONTROL

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory

BASE: Final = 0xE0000
"""In the range that a PC's BIOS occupies, on a boundary where systems look for the RSDP."""
SCI: Final = 9
"""The request line of the system control interrupt, which never comes."""

# A table's header (ACPI 5.2.6).
_HEADER: Final = struct.Struct("<4sIBB6s8sI4sI")
_WBINVD, _C1, _NO_POWER_BUTTON, _NO_SLEEP_BUTTON, _TIMER_32, _RESET = 1, 4, 1 << 4, 1 << 5, 1 << 8, 1 << 10
# IA-PC boot architecture flags (5.2.9.3), then the MADT's PCAT_COMPAT.
_LEGACY_DEVICES, _NO_VGA = 1, 4
_PC_AT_8259: Final = 1
_SLEEP_5: Final = b"\x08_S5_\x12\x06\x04\0\0\0\0"
"""AML: Name (_S5, Package (4) {0, 0, 0, 0}). Sleep type 0 switches off."""


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    length = _HEADER.size + len(body)
    header = _HEADER.pack(signature, length, revision, 0, b"PVOPS ", b"PVOPS PC", 1, b"PVOP", 1)
    return _summed(header + body, 9)


def _summed(data: bytes, place: int) -> bytes:
    """The data with the byte at ``place`` such that all bytes add up to 0."""
    # The byte itself must be 0 when the sum is made.
    return data[:place] + bytes([-sum(data) & 0xFF]) + data[place + 1 :]


def _fadt(facs: int, dsdt: int) -> bytes:
    flags = _WBINVD | _C1 | _NO_POWER_BUTTON | _NO_SLEEP_BUTTON | _TIMER_32 | _RESET
    head = struct.pack(
        "<IIBBHIBBBB8I8B4H5BHBI",
        *(facs, dsdt, 0, 0, SCI, 0, 0, 0, 0, 0),
        *(PM1_EVENT, 0, PM1_CONTROL, 0, 0, PM_TIMER, 0, 0),
        *(4, 2, 0, 4, 0, 0, 0, 0),
        *(101, 1001, 0, 0),  # latencies that say: no C2, no C3
        *(0, 0, 0, 0, CENTURY),
        *(_LEGACY_DEVICES | _NO_VGA, 0, flags),
    )
    # Reset by a byte written to a port of the I/O space: 6 sets RST_CPU and system reset at once.
    reset = struct.pack("<BBBBQB", 1, 8, 0, 1, RESET_CONTROL, 6)
    # Revision 3 has 244 bytes; what is left out is zero, which means absent.
    return _table(b"FACP", 3, (head + reset).ljust(244 - _HEADER.size, b"\0"))


def _madt(processors: int) -> bytes:
    """Processors with their local APICs, the I/O APIC, and where the wires go that are not where one would expect."""
    local = b"".join(struct.pack("<BBBBI", 0, 8, number, number, 1) for number in range(processors))
    io = struct.pack("<BBBBII", 1, 12, 0, 0, apics.IO, 0)
    # An override: request 0 comes in at input 2, with the bus's own polarity and trigger.
    timer = struct.pack("<BBBBIH", 2, 10, 0, IRQ_TIMER, PIN_TIMER, 0)
    # LINT1 of all processors (0xff) is the NMI's.
    nmi = struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    return _table(b"APIC", 3, struct.pack("<II", apics.LOCAL, _PC_AT_8259) + local + io + timer + nmi)


def write_tables(memory: PhysicalMemory, processors: int) -> int:
    """Write the tables at ``BASE``; returns the physical address of the RSDP, which is that."""
    facs = BASE + 0x40
    dsdt = facs + 0x40
    fadt = dsdt + 0x40
    rsdt = fadt + 0x100
    madt = rsdt + 0x40
    rsdp = struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"PVOPS ", 0, rsdt)
    for address, data in (
        (BASE, _summed(rsdp, 8)),
        (facs, struct.pack("<4sI", b"FACS", 64).ljust(64, b"\0")),
        (dsdt, _table(b"DSDT", 2, _SLEEP_5)),
        (fadt, _fadt(facs, dsdt)),
        # Only the two that Linux looks for by this; FACS and DSDT are named by the FADT.
        (rsdt, _table(b"RSDT", 1, struct.pack("<II", fadt, madt))),
        (madt, _madt(processors)),
    ):
        memory.write(address, data)
    return BASE
