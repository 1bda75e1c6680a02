"""Guests that mean harm: each ends with the words of the real host, or goes on; none gets at the host itself."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from pvops_lguest.host.abi import ABIS, Call

from .launcher_rig import Driver, standing
from .rig import BASE, CODE, DATA, RAM, Host, Program
from .small import RAM as KERNEL_RAM
from .small import SmallGuest

if TYPE_CHECKING:
    from pvops_lguest.platform import LguestPlatform

    from pvops_core.machine import Machine

HYPERCALLS = int(os.environ.get("PVOPS_HYPERCALLS", "2000"))
"""Random calls on each generation's host; the full size is 100,000."""
Misdeed = Callable[[Host], object]


def ring(code: str) -> Misdeed:
    """Run some code in the guest's kernel."""

    def do(host: Host) -> object:
        host.init()
        host.program(Program().raw(code).hang())
        return None

    return do


def call(call: Call, *args: int) -> Misdeed:
    return lambda host: host.init().call(call, *args)


def table(flags: int, frame: int = 0x300000) -> Misdeed:
    """An entry of a directory or a table, and a touch of what it maps."""

    def do(host: Host) -> object:
        host.init()
        host.set(host.gpgdir + 4, 0xA000 | 7)
        host.set(0xA000, frame | flags)
        host.program(Program().op(0xA1, 0x400000).hang())
        return None

    return do


CASES: list[tuple[str, str, Misdeed, str]] = [
    ("2.6.24", "cli", ring("fa"), "unhandled trap 13 at"),
    ("2.6.24", "sti", ring("fb"), "unhandled trap 13 at"),
    ("2.6.24", "hlt", ring("f4"), "unhandled trap 13 at"),
    ("2.6.24", "mov cr3", ring("0f22d8"), "unhandled trap 13 at"),
    ("2.6.24", "mov cr0", ring("0f22c0"), "unhandled trap 13 at"),
    ("2.6.24", "mov from cr4", ring("0f20e0"), "unhandled trap 13 at"),
    ("2.6.24", "lgdt", ring("0f0115000010c0"), "unhandled trap 13 at"),
    ("2.6.24", "lidt", ring("0f011d000010c0"), "unhandled trap 13 at"),
    ("2.6.24", "ltr", ring("66b880000f00d8"), "unhandled trap 13 at"),
    ("2.6.24", "invlpg", ring("0f0138"), "unhandled trap 13 at"),
    ("2.6.24", "clts", ring("0f06"), "unhandled trap 13 at"),
    ("2.6.24", "wbinvd", ring("0f09"), "unhandled trap 13 at"),
    ("2.6.24", "wrmsr", ring("0f30"), "unhandled trap 13 at"),
    ("2.6.24", "ud2", ring("0f0b"), "unhandled trap 6 at"),
    ("2.6.24", "the host's code segment", ring("66b850008ed8"), "unhandled trap 13 at"),
    ("2.6.24", "int of a hardware vector", ring("cd21"), "unhandled trap 13 at"),
    ("2.6.24", "vmcall of another age", ring("0f01c1"), "unhandled trap 6 at"),
    ("2.6.24", "division", ring("31c9f7f1"), "unhandled trap 0 at"),
    ("2.6.24", "the switcher", ring("a1000000ffc0"), "unhandled trap 14 at"),
    ("2.6.24", "a page that is not there", ring("a100000040"), "unhandled trap 14 at"),
    ("2.6.24", "a large page", table(0x87), "bad page table entry"),
    ("2.6.24", "write-through", table(0x0F), "bad page table entry"),
    ("2.6.24", "a frame of the host's", table(7, RAM), "bad page table entry"),
    ("2.6.24", "a frame beyond memory", table(7, 0xFFFFF000), "bad page table entry"),
    ("2.6.24", "a bad call", lambda host: host.init().platform.hypercall(host.vcpu, 99), "Bad hypercall 99"),
    ("2.6.24", "a call before INIT", lambda host: host.call(Call.TS, 0), "hypercall 8 before INIT"),
    ("2.6.24", "INIT twice", lambda host: host.init().call(Call.LGUEST_INIT, DATA), "already have lguest_data"),
    ("2.6.24", "INIT beyond memory", lambda host: host.call(Call.LGUEST_INIT, RAM), "bad guest page"),
    ("2.6.24", "a message beyond memory", call(Call.CRASH, RAM), "bad read address"),
    ("2.6.24", "a large GDT", call(Call.LOAD_GDT, 0, 33), "too many gdt entries 33"),
    ("2.6.24", "a GDT beyond memory", call(Call.LOAD_GDT, RAM - 8, 32), "bad read address"),
    ("2.6.24", "a TLS beyond memory", call(Call.LOAD_TLS, RAM), "bad read address"),
    ("2.6.24", "a vector that is none", call(Call.LOAD_IDT_ENTRY, 256, 0, 0x8E00), "Setting idt entry 256"),
    ("2.6.24", "a task gate", call(Call.LOAD_IDT_ENTRY, 3, 0, 0x8500), "bad IDT type 5"),
    ("2.6.24", "a call gate", call(Call.LOAD_IDT_ENTRY, 3, 0, 0x8C00), "bad IDT type 12"),
    ("2.6.24", "a stack of ring 0", call(Call.SET_STACK, 0x68, BASE, 1), "bad stack segment 104"),
    ("2.6.24", "a stack of ring 3", call(Call.SET_STACK, 0x6B, BASE, 1), "bad stack segment 107"),
    ("2.6.24", "a long stack", call(Call.SET_STACK, 0x69, BASE, 3), "bad stack pages 3"),
    ("2.6.24", "a stack that is not there", call(Call.SET_STACK, 0x69, 0x1000, 1), "bad stack page"),
    ("2.6.24", "a table of the host's", call(Call.SET_PTE, 0, 0xFFC00000, 0x67), "attempt to access switcher pages"),
    ("2.6.24", "NOTIFY beyond memory", call(Call.NOTIFY, RAM), "Bad NOTIFY"),
    ("2.6.23", "DMA beyond memory", call(Call.SEND_DMA, 0, RAM), "bad read address"),
    ("2.6.23", "a key that is not aligned", call(Call.BIND_DMA, 2, 0, 0x101), "bad dma key 0x2"),
    ("2.6.23", "a key beyond memory", call(Call.BIND_DMA, RAM, 0, 0x101), "bad dma key"),
    ("2.6.24", "lmsw", ring("0f01f0"), "unhandled trap 13 at"),
    ("2.6.24", "mov dr7", ring("0f23f8"), "unhandled trap 13 at"),
    ("2.6.24", "rdmsr", ring("0f32"), "unhandled trap 13 at"),
    ("2.6.24", "a far jump into the host", ring("ea000010c05000"), "unhandled trap 13 at"),
    ("2.6.24", "its own double fault", ring("cd08"), "unhandled trap 13 at"),
    ("2.6.24", "a breakpoint that it has no gate for", ring("cc"), "unhandled trap 13 at"),
    ("2.6.24", "a directory beyond memory", call(Call.NEW_PGTABLE, RAM), "bad read address"),
    ("2.6.31", "a bad call", lambda host: host.init().platform.hypercall(host.vcpu, 99), "Bad hypercall 99"),
    ("2.6.31", "a stack of ring 0", call(Call.SET_STACK, 0x68, BASE, 1), "bad stack segment 104"),
    ("2.6.35", "a bad call", lambda host: host.init().platform.hypercall(host.vcpu, 99), "Bad hypercall 99"),
    ("2.6.35", "a long stack", call(Call.SET_STACK, 0x69, BASE, 3), "bad stack pages 3"),
    ("2.6.35", "a task gate", call(Call.LOAD_IDT_ENTRY, 3, 0, 0x8500), "bad IDT type 5"),
    ("2.6.35", "a TLS beyond memory", call(Call.LOAD_TLS, RAM), "bad read address"),
    ("2.6.35", "NOTIFY beyond memory", call(Call.NOTIFY, RAM), "Bad NOTIFY"),
    ("2.6.23", "a bad call", lambda host: host.init().platform.hypercall(host.vcpu, 99), "Bad hypercall 99"),
    ("2.6.23", "a large GDT", call(Call.LOAD_GDT, 0, 33), "too many gdt entries 33"),
    ("2.6.35", "a descriptor too many", call(Call.LOAD_GDT_ENTRY, 32, 0, 0), "too many gdt entries 32"),
    ("2.6.35", "a call of another age", lambda host: host.init().platform.hypercall(host.vcpu, 3), "Bad hypercall 3"),
    ("2.6.35", "a message of another's", call(Call.SHUTDOWN, 0xFFFFFFFF, 1), "bad read address"),
]


@pytest.mark.parametrize(("abi", "name", "misdeed", "words"), CASES, ids=[f"{case[0]} {case[1]}" for case in CASES])
def test_the_host_kills_with_its_own_words(
    make_host: Callable[..., Host], abi: str, name: str, misdeed: Misdeed, words: str
) -> None:
    del name
    host = make_host(abi)
    misdeed(host)
    reason, detail = host.ends(2_000_000)
    assert reason == "crash"
    assert detail.startswith(words)


RINGS: dict[str, tuple[Callable[[Driver], object], str]] = {
    "an index from nowhere": (lambda ring: ring.memory.write(ring.at + 2050, b"\xff\xff"), "Guest moved used index"),
    "a head that is none": (
        lambda ring: (ring.memory.write(ring.at + 2052, b"\xff\0"), ring.offer()),
        "Guest says index",
    ),
    "the host's memory": (lambda ring: ring.offer((KERNEL_RAM + (256 << 12), 16, 0)), "Invalid address"),
    "an address beyond all": (lambda ring: ring.offer(((1 << 64) - 1, 16, 0)), "Invalid address"),
    "a length beyond all": (lambda ring: ring.offer((0, 0xFFFFFFFF, 0)), "Invalid address"),
    "out after in": (lambda ring: ring.offer((0, 1, 2), (0, 1, 0)), "Descriptor has out after in"),
    "a buffer to write to": (lambda ring: ring.offer((0, 1, 2)), "Input buffers in output queue?"),
    "a loop": (
        lambda ring: (ring.offer((0, 1, 0)), ring.memory.write(ring.at + 12, b"\1\0\0\0")),
        "Looped descriptor",
    ),
    "a next that is none": (
        lambda ring: (ring.offer((0, 1, 0)), ring.memory.write(ring.at + 12, b"\1\0\x80\0")),
        "Desc next is 128",
    ),
}


@pytest.mark.parametrize("name", RINGS)
def test_a_ring_that_points_anywhere(name: str) -> None:
    harm, words = RINGS[name]
    with standing("2.6.24") as session:
        ring = Driver(session, 1)
        harm(ring)
        ring.kick()
        stop = session.run(max_ns=1_000_000)
        assert (stop.reason, stop.detail.startswith(words)) == ("crash", True), stop


@pytest.mark.parametrize("value", [0, 1, 0xFF])
def test_descriptors_are_the_guests_to_spoil(value: int) -> None:
    """The host never reads back what it wrote there, but for a status byte."""
    guest = SmallGuest("2.6.31")
    guest.code.hang()
    with guest.session() as session:
        session.run(max_ns=100_000)
        session.machine.memory.write(KERNEL_RAM, bytes([value]) * 4096)
        for offset in (0, 1, 4095):
            session.platform.hypercall(session.machine.vcpus[0], 17, KERNEL_RAM + offset)
        assert session.run(max_ns=100_000).reason in {"timeout", "crash"}


@pytest.mark.parametrize("abi", ABIS)
def test_random_hypercalls_end_in_nothing_but_a_kill(make_host: Callable[..., Host], abi: str) -> None:
    host = make_host(abi).init()
    assert storm(host.machine, host.platform, random.Random(abi), HYPERCALLS) == HYPERCALLS


WIDE: dict[str, tuple[list[tuple[int, int]], str]] = {
    "a pointer with rights": ([(0, 0xA007)], "bad page directory entry"),
    "a pointer beyond 4 GiB": ([(0, 1 << 40 | 1)], "bad page directory entry"),
    "a pointer that may not be executed": ([(0, 1 << 63 | 0xA001)], "bad page directory entry"),
    "a large page": ([(0, 0xA001), (0xA008, 0x87)], "bad page middle directory entry"),
    "a table of the host's": ([(0, 0xA001), (0xA008, KERNEL_RAM << 8 | 7)], "bad page middle directory entry"),
    "a frame beyond 4 GiB": ([(0, 0xA001), (0xA008, 0xB007), (0xB000, 1 << 36 | 7)], "bad page table entry"),
    "a large frame": ([(0, 0xA001), (0xA008, 0xB007), (0xB000, 0x87)], "bad page table entry"),
}
"""Entries of 64 bits by their place, from the guest's directory for the first, and how a touch of 2 MiB ends."""


@pytest.mark.parametrize("name", WIDE)
def test_bad_tables_with_pae(name: str) -> None:
    guest = SmallGuest("2.6.35", pae=True)
    guest.code.op(0xA1, 0x200000).hang()
    with guest.session() as session:
        memory, directory = session.machine.memory, session.platform.state.shadow.gpgdir
        session.run(max_ns=20_000)
        entries, words = WIDE[name]
        memory.write(0xA000, bytes(0x2000))
        for place, entry in entries:
            memory.set_u64(place or directory, entry)
        session.platform.hypercall(session.machine.vcpus[0], 5, 1)
        session.machine.vcpus[0].set("eip", BASE + CODE + len(guest.code.code) - 7)
        stop = session.run(max_ns=1_000_000)
        assert (stop.reason, stop.detail.startswith(words)) == ("crash", True), stop


@pytest.mark.parametrize("abi", ["2.6.31", "2.6.35"])
def test_random_hypercalls_with_pae(abi: str) -> None:
    guest = SmallGuest(abi, pae=True)
    guest.code.hang()
    with guest.session() as session:
        session.run(max_ns=20_000)
        assert storm(session.machine, session.platform, random.Random(abi), HYPERCALLS) == HYPERCALLS


def storm(machine: Machine, platform: LguestPlatform, chance: random.Random, count: int) -> int:
    """So many random calls on a host, which starts anew whenever it has killed its guest."""
    abi, start = platform.state.abi, machine.snapshot()
    places = (0, 1, 7, DATA, CODE, BASE, RAM - 8, RAM, 0xFFC00000, 0xFFE00000, 0xFFFFFFFF)
    numbers = [*abi.calls, 3, 12, 13, 20, 255]
    made = 0
    for _ in range(count):
        arguments = [
            chance.choice(places) + chance.choice((0, 0, 4, 0x1000))
            if chance.random() < 0.7
            else chance.getrandbits(32)
            for _ in range(abi.arguments)
        ]
        platform.hypercall(machine.vcpus[0], chance.choice(numbers), *arguments)
        made += 1
        if platform.save().end is not None:
            machine.restore(start)
    return made
