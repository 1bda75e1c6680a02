from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import attrs
import pytest
from pvops_xen.hypervisor import builder
from pvops_xen.hypervisor.memory import audit
from pvops_xen.platform import XenPlatform
from pvops_xen.testing.guests import SmallGuest

from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine, Stop, Vcpu

CODE, DATA, STACK, TABLES = 0x100, 0x110, 0x120, 0x200


@attrs.define
class Bench:
    """A domain with a few pages of code and data of the test's own, all memory mapped at ``base``."""

    machine: Machine
    platform: XenPlatform
    base: int

    @property
    def cpu(self) -> Vcpu:
        return self.machine.vcpus[0]

    @property
    def word(self) -> int:
        return self.machine.kind.pointer_size

    def va(self, pfn: int) -> int:
        return self.base + (pfn << 12)

    def mfn(self, pfn: int) -> int:
        return self.platform.hv.domain.p2m[pfn]

    def write(self, pfn: int, data: bytes, offset: int = 0) -> int:
        builder.write_physical(self.platform.hv, (pfn << 12) + offset, data)
        return self.va(pfn) + offset

    def words(self, *values: int) -> bytes:
        return struct.pack(f"<{len(values)}{'Q' if self.word == 8 else 'I'}", *values)

    def call(self, nr: int, *args: int) -> int:
        return self.platform.hypercall(self.cpu, nr, *args)

    def mmuext(self, command: int, arg1: int = 0, arg2: int = 0) -> int:
        address = self.write(DATA, self.words(command, arg1, arg2))
        return self.call(26, address, 1, 0, 0x7FF0)

    def mmu_update(self, ptr: int, val: int) -> int:
        address = self.write(DATA, struct.pack("<QQ", ptr, val))
        return self.call(1, address, 1, 0, 0x7FF0)

    def set_mapping(self, pfn: int, *, writable: bool) -> int:
        entry = self.mfn(pfn) << 12 | (0x63 if writable else 0x61)
        args = (entry, 0) if self.word == 8 else (entry & 0xFFFFFFFF, entry >> 32, 0)
        return self.call(14, self.va(pfn), *args)

    def run(self, code: str) -> Stop:
        start = self.write(CODE, bytes.fromhex(code))
        self.machine.invalidate([(start, start + 0x100)])
        self.cpu.rip = self.va(CODE)
        return self.machine.run(max_ns=50_000_000)

    def set_trap(self, vector: int, address: int, flags: int = 0) -> None:
        if self.word == 8:
            entry = struct.pack("<BBHIQ16x", vector, flags, 0xE033, 0, address)
        else:
            entry = struct.pack("<BBHI8x", vector, flags, 0xE019, address)
        assert self.call(0, self.write(DATA, entry)) == 0


def _bench(kind: MachineKind, vcpus: int) -> Bench:
    machine = Machine(kind, memory=4 << 20, vcpus=vcpus)
    platform = XenPlatform(machine, None)  # type: ignore[arg-type]
    base = 0xFFFFFFFF80000000 if kind.bits == 64 else 0xC0000000
    platform.initial_tables = builder.build_tables(platform.hv, base, TABLES)
    for cpu in machine.vcpus:
        builder.prepare_cpu(platform.hv, cpu)
        if cpu.index:
            cpu.halt()
    bench = Bench(machine, platform, base)
    builder.start(platform.hv, machine.vcpus[0], bench.va(CODE), 0)
    bench.cpu.rsp = bench.va(STACK) + 0x800
    return bench


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    """Makes benches; whatever a test did to them, the frame table must still be right at its end."""
    benches = []

    def make(kind: MachineKind, vcpus: int = 1) -> Bench:
        benches.append(_bench(kind, vcpus))
        return benches[-1]

    yield make
    findings = [finding for bench in benches for finding in audit.audit(bench.platform.hv)]
    for bench in benches:
        bench.machine.close()
    assert not findings


@pytest.fixture(params=[MachineKind.X86_64, MachineKind.PAE], ids=["64", "pae"])
def bench(request: pytest.FixtureRequest, make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(request.param)


@pytest.fixture
def bench64(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(MachineKind.X86_64)


@pytest.fixture
def bench32(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(MachineKind.PAE)


@pytest.fixture(scope="module")
def guests(request: pytest.FixtureRequest) -> Iterator[dict[int, SmallGuest]]:
    """A small guest of each width for a module of tests, with the module's ``VCPUS`` if it states them."""
    made = {bits: SmallGuest(bits, vcpus=getattr(request.module, "VCPUS", 1)) for bits in (64, 32)}
    yield made
    for guest in made.values():
        guest.close()


@pytest.fixture(params=[64, 32])
def guest(request: pytest.FixtureRequest, guests: dict[int, SmallGuest]) -> Iterator[SmallGuest]:
    """One of them, as new; whatever a test did to it, the frame table must still be right at its end."""
    chosen = guests[request.param]
    chosen.restart()
    yield chosen
    assert audit.audit(chosen.hv) == []
