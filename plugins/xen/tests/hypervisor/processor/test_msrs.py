"""Model-specific registers as an unprivileged PV guest of Xen 4.17 on an Intel host has them, in both widths."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.domain.stubs import hypercall_page
from pvops_xen.hypervisor.abi import Hypercall
from pvops_xen.hypervisor.processor.msrs import MSRS

if TYPE_CHECKING:
    from pvops_xen.testing.guests import SmallGuest

GP = 13
GPF = "GP"
ONES = (1 << 64) - 1

# number -> what rdmsr gives, "GP" for #GP(0); of a row its ends and the numbers beside it
READ: dict[int, int | str] = {
    0x0: 0, 0x1: 0, 0x2: GPF, 0x17: 0, 0x1B: 0xFEE0_0900, 0x33: GPF, 0x3A: 1, 0x48: GPF, 0x49: GPF,
    0x4E: GPF, 0x79: GPF, 0x8B: 0, 0xC0: GPF, 0xC1: 0, 0xC8: 0, 0xC9: GPF, 0xCE: 1 << 31, 0xCF: GPF,
    0xE7: GPF, 0xE8: GPF, 0x10B: GPF, 0x10F: GPF, 0x122: GPF, 0x140: 0, 0x174: GPF, 0x176: GPF,
    0x179: 0x0100_0C02, 0x17A: 0, 0x17B: 0, 0x186: 0, 0x189: 0, 0x18A: GPF, 0x198: 0, 0x199: 0, 0x19A: GPF,
    0x19C: 0, 0x1A0: 0x80_1801, 0x1B0: GPF, 0x1D9: GPF, 0x200: GPF, 0x277: 0x0501_0007_0406, 0x27F: GPF,
    0x280: 0, 0x29F: 0, 0x2A0: GPF, 0x2FF: GPF, 0x309: 0, 0x30B: 0, 0x30C: GPF, 0x345: 0, 0x38C: GPF,
    0x38D: 0, 0x390: 0, 0x391: GPF, 0x400: ONES, 0x401: 0, 0x404: ONES, 0x407: 0, 0x408: 0, 0x47F: 0, 0x480: GPF,
    0x4D0: GPF, 0x560: GPF, 0x6A0: GPF, 0x800: GPF, 0x8FF: GPF, 0xD90: GPF, 0xDA0: GPF,
    0x4000_0000: 0, 0x4000_0001: GPF, 0x4000_0200: GPF, 0x4000_0300: GPF, 0xC000_0081: GPF,
    0xC000_0082: GPF, 0xC000_0083: GPF, 0xC000_0084: GPF, 0xC000_0103: GPF, 0xC001_0015: GPF,
    0xC001_001F: 0, 0xC001_0061: GPF, 0xC001_1029: GPF, 0xFFFF_FFFF: GPF,
}  # fmt: skip
READ_BY_WIDTH: dict[int, dict[int, int | str]] = {
    64: {0xC000_0080: 0xD01, 0xC000_0100: 0, 0xC000_0101: 0, 0xC000_0102: 0},
    32: {0xC000_0080: 0x800, 0xC000_0100: GPF, 0xC000_0101: GPF, 0xC000_0102: GPF},
}
TAKEN = [
    *(
        (0x8B, 0),
        (0xC1, 5),
        (0xC8, 5),
        (0xE7, 5),
        (0xE8, 5),
        (0x140, 0),
        (0x140, 1),
        (0x179, 5),
        (0x17A, 5),
        (0x17B, 5),
    ),
    *((0x186, 5), (0x189, 5), (0x199, 5), (0x19A, 5), (0x1A0, 0), (0x1A0, 1), (0x1B0, 5), (0x280, 5), (0x29F, 5)),
    *((0x309, 5), (0x38D, 5), (0x390, 5), (0x400, 0), (0x401, 0), (0x407, 0), (0x408, 5), (0x47F, 5), (0xC001_001F, 5)),
]
REFUSED = [
    *((0x0, 0), (0x10, 0), (0x17, 0), (0x1B, 0xFEE0_0900), (0x3A, 1), (0x48, 0), (0x49, 1), (0x79, 0), (0x8B, 1)),
    *((0xCE, 0), (0x10A, 0), (0x10B, 1), (0x140, 2), (0x174, 0), (0x198, 0), (0x19C, 0), (0x1D9, 0), (0x277, 0)),
    *((0x345, 0), (0x401, 1), (0x403, 1), (0x405, 1), (0x4D0, 0), (0x4000_0000, 1), (0x4000_0001, 0), (0xC000_0080, 0)),
    *((0xC000_0081, 0), (0xC000_0082, 0), (0xC000_0103, 0), (0xC001_0015, 0), (0x12345, 0)),
]


VCPUS = 2


def read(g: SmallGuest, index: int) -> int | str:
    got = g.execute(f"mov ecx, {index:#x}\n rdmsr")
    if got.kind == "trap":
        assert (got.vector, got.error, got.address) == (GP, 0, g.va("probe") + 5)
        return GPF
    low, high = (got.registers[name if g.bits == 64 else f"e{name[1:]}"] for name in ("rax", "rdx"))
    return high << 32 | low & 0xFFFF_FFFF


def write(g: SmallGuest, index: int, value: int) -> bool:
    got = g.execute(f"mov ecx, {index:#x}\n mov eax, {value & 0xFFFF_FFFF:#x}\n mov edx, {value >> 32:#x}\n wrmsr")
    return got.kind == "done"


def test_what_is_read(guest: SmallGuest) -> None:
    expected = READ | READ_BY_WIDTH[guest.bits]
    assert {index: read(guest, index) for index in expected} == expected


def test_what_is_taken(guest: SmallGuest) -> None:
    assert [(index, value) for index, value in TAKEN if not write(guest, index, value)] == []


def test_what_is_refused(guest: SmallGuest) -> None:
    assert [(index, value) for index, value in REFUSED if write(guest, index, value)] == []


def test_what_is_taken_changes_only_what_is_kept(guest: SmallGuest) -> None:
    before = {index: read(guest, index) for index, _ in TAKEN}
    for index, value in TAKEN:
        write(guest, index, value)
    after = {index: read(guest, index) for index, _ in TAKEN}
    assert {index for index, value in after.items() if value != before[index]} == {0x140, 0x17A, 0x280}
    assert (after[0x140], after[0x17A], after[0x280]) == (1, 5, 5)


def test_efer_takes_the_value_that_it_has(guest: SmallGuest) -> None:
    value = 0xD01 if guest.bits == 64 else 0x800
    assert write(guest, 0xC000_0080, value)
    assert not write(guest, 0xC000_0080, value ^ 0x800)


def test_segment_bases(guests: dict[int, SmallGuest]) -> None:
    g = guests[64]
    g.restart()
    for index in (0xC000_0100, 0xC000_0101, 0xC000_0102):
        assert write(g, index, 0x1234_5678_9000)
        assert read(g, index) == 0x1234_5678_9000
        assert not write(g, index, 1 << 47)
    assert not write(guests[32], 0xC000_0100, 0)


def test_only_the_first_vcpu_is_the_boot_processor(guest: SmallGuest) -> None:
    row = next(row for row in MSRS if row.name == "APIC_BASE")
    assert callable(row.read)
    assert [row.read(guest.hv, cpu, 0x1B) for cpu in guest.hv.machine.vcpus] == [0xFEE0_0900, 0xFEE0_0800]


def without_handler(g: SmallGuest) -> None:
    g.call(Hypercall.SET_TRAP_TABLE, 0)


def test_a_kernel_without_a_handler_reads_0_of_what_the_host_has(guest: SmallGuest) -> None:
    """``read_msr``: faking RDMSR. Writes are not faked, and Xen's own numbers neither."""
    without_handler(guest)
    for index in (0x174, 0x1D9, 0x200, 0xC000_0082, 0xC000_0103):
        assert read(guest, index) == 0
    assert guest.session.platform.messages[-1] == "faking RDMSR 0xc0000103"
    assert read(guest, 0x1B) == 0xFEE0_0900


@pytest.mark.parametrize("index", [0x12345, 0x4000_0001, 0x49])
def test_a_kernel_without_a_handler_dies_of_what_the_host_has_not(guest: SmallGuest, index: int) -> None:
    without_handler(guest)
    got = guest.execute(f"mov ecx, {index:#x}\n rdmsr")
    assert (got.kind, got.detail.split(" at ")[0]) == ("crash", "Unhandled: vec 13, general_protection[0000]")


def test_a_write_is_never_faked(guest: SmallGuest) -> None:
    without_handler(guest)
    assert guest.execute("mov ecx, 0x1d9\n xor eax, eax\n xor edx, edx\n wrmsr").kind == "crash"


def test_the_page_of_hypercalls_by_msr(guest: SmallGuest) -> None:
    assert write(guest, 0x4000_0000, guest.mfn(0) << 12)
    assert guest.hv.memory.read(guest.mfn(0) << 12, 4096) == hypercall_page(guest.bits)
    name = "rax" if guest.bits == 64 else "eax"
    stub = guest.va(0) + 17 * 32
    version = guest.execute(f"xor edi, edi\n xor ebx, ebx\n mov {name}, {stub:#x}\n call {name}")
    assert version.registers[name] == 4 << 16 | 17
    for bad in (guest.mfn(0) << 12 | 1, guest.table(1) << 12, guest.hv.m2p, len(guest.hv.frames) << 12):
        assert not write(guest, 0x4000_0000, bad)


def test_unknown_ones_are_in_xens_log(guest: SmallGuest) -> None:
    read(guest, 0x12345)
    write(guest, 0x12345, 7)
    assert guest.session.platform.messages[-2:] == [
        "RDMSR 0x00012345 unimplemented",
        "WRMSR 0x00012345 val 0x0000000000000007 unimplemented",
    ]


def test_the_rows_lie_apart() -> None:
    numbers = [index for row in MSRS for index in range(row.first, row.last + 1)]
    assert numbers == sorted(set(numbers))


def leaf(g: SmallGuest, number: int, sub: int = 0) -> tuple[int, ...]:
    got = g.execute(f"mov eax, {number:#x}\n mov ecx, {sub:#x}\n cpuid")
    names = ("rax", "rbx", "rcx", "rdx") if g.bits == 64 else ("eax", "ebx", "ecx", "edx")
    return tuple(got.registers[name] & 0xFFFF_FFFF for name in names)


def test_xens_leaves(guest: SmallGuest) -> None:
    """``cpuid_hypervisor_leaves``."""
    signature = struct.unpack("<3I", b"XenVMMXenVMM")
    width = (len(guest.hv.frames) - 1).bit_length() + 12
    expected = {
        (0x4000_0000, 0): (0x4000_0005, *signature),
        (0x4000_0000, 9): (0x4000_0005, *signature),
        (0x4000_0001, 0): (4 << 16 | 17, 0, 0, 0),
        (0x4000_0002, 0): (1, 0x4000_0000, 1, 0),
        (0x4000_0003, 0): (6, 0, 1_000_000, 1),
        (0x4000_0003, 1): (0, 0, 1 << 31, 1),
        (0x4000_0003, 2): (1_000_000, 0, 0, 0),
        (0x4000_0003, 3): (0, 0, 0, 0),
        (0x4000_0004, 0): (0, 0, 0, 0),
        (0x4000_0005, 0): (0, width, 0, 0),
        (0x4000_0005, 1): (0, 0, 0, 0),
        (0x4000_0006, 0): (0, 0, 0, 0),
        (0x4000_0100, 0): (0, 0, 0, 0),
    }
    assert {key: leaf(guest, *key) for key in expected} == expected


def test_leaves_that_are_not_there_are_zero(guest: SmallGuest) -> None:
    """``guest_cpuid``, as AMD's processors do it."""
    assert leaf(guest, 0)[0] == 7
    assert leaf(guest, 7) == (0, 0, 0, 1 << 29)
    for number, sub in ((7, 1), (8, 0), (0xD, 0), (0x3FFF_FFFF, 0), (0x8000_0009, 0), (0xFFFF_FFFF, 0)):
        assert leaf(guest, number, sub) == (0, 0, 0, 0)


def test_long_mode_is_for_64_bit_guests(guest: SmallGuest) -> None:
    edx = leaf(guest, 0x8000_0001)[3]
    assert (bool(edx >> 29 & 1), bool(edx >> 11 & 1)) == (guest.bits == 64,) * 2
    assert edx >> 20 & 1
