"""The software walk says what the CPU does: same address, same fault, same error code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pvops_core.machine import BareMetal, GuestFault, Machine, MachineKind, PageFault
from pvops_core.machine.cpu.memory.paging import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

CODE, TARGET = 0x1000, 0x40000000
ROOT, MID1, MID2, LAST, PAGE = 0x2000, 0x3000, 0x4000, 0x5000, 0x100000
LOW1, LOW2, LOW3 = 0x7000, 0x8000, 0x9000
READ, WRITE, FETCH = "8a06 cd80", "8806 cd80", "ffe6"
INT_80 = 0x80CD
FLAGS = [1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 12, 1 << 13, 1 << 21, 1 << 40, 1 << 51, 1 << 52, 1 << 63]


class Stopper(BareMetal):
    """Ends the run at the first trap."""

    fault: tuple[int, int | None, int | None] | None = None

    def exception(self, _vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        self.fault = (vector, error_code, address)
        self.machine.stop("fault")

    def software_interrupt(self, _vcpu: Vcpu, _vector: int) -> None:
        self.machine.stop("ok")


class Prober:
    """A machine whose target address goes through tables that a test fills at will."""

    def __init__(self, kind: MachineKind) -> None:
        self.kind = kind
        self.machine = Machine(kind, memory=8 << 20)
        self.platform = Stopper(self.machine)
        self.machine.attach(self.platform)
        self.cpu = self.machine.vcpus[0]
        memory = self.machine.memory
        for page in range(0, 8 << 20, 0x1000):
            memory.write(page, bytes.fromhex("cd80"))  # wherever a fetch lands, it says so
        memory.write(2, bytes(0xA000 - 2))
        code = 0xAF if kind.bits == 64 else 0xCF
        for index, (type_, size) in enumerate(((0xFA, code), (0xF2, 0xCF)), 1):
            memory.set_u64(0x100 + index * 8, size << 48 | type_ << 40 | 0xFFFF)
        self.cpu.insn.lgdt(0x100, 0x17)
        self.fresh = self.cpu.save_registers()

    def tables(self, entries: list[int]) -> None:
        """Fill the walk of the target with the entries' flags, and map the code page for everybody."""
        memory = self.machine.memory
        memory.write(ROOT, bytes(0x8000 - 0x2000 + 0x2000))
        if self.kind is MachineKind.I386:
            memory.set_u32(ROOT, LOW1 | 7)
            memory.set_u32(LOW1 + 4, CODE | 7)
            memory.set_u32(ROOT + (TARGET >> 22) * 4, LAST | entries[0] & 0xFFFFFFFF)
            memory.set_u32(LAST, PAGE | entries[1] & 0xFFFFFFFF)
            return
        chain = [(ROOT, 1, LOW1), (LOW1, 0, LOW2), (LOW2, CODE >> 12, CODE)]
        walk = [(ROOT, TARGET >> 30, MID2), (MID2, 0, LAST), (LAST, 0, PAGE)]
        if self.kind is MachineKind.X86_64:
            chain = [(ROOT, 0, MID1), (MID1, 0, LOW1), (LOW1, 0, LOW2), (LOW2, CODE >> 12, CODE)]
            walk = [(ROOT, 0, MID1), (MID1, TARGET >> 30, MID2), (MID2, 0, LAST), (LAST, 0, PAGE)]
        else:
            chain = [(ROOT, 0, LOW1), (LOW1, 0, LOW2), (LOW2, CODE >> 12, CODE)]
        for (table, slot, target), flags in zip(walk, entries, strict=False):
            memory.set_u64(table + slot * 8, target | flags)
        for level, (table, slot, target) in enumerate(chain):
            flags = 1 if self.kind is MachineKind.PAE and level == 0 else 7
            memory.set_u64(table + slot * 8, target | flags)

    def start(self, entries: list[int], *, wp: bool, nxe: bool, pse: bool, user: bool) -> None:
        cpu = self.cpu
        cpu.load_registers(self.fresh)
        self.tables(entries)
        if self.kind is MachineKind.I386:
            cpu.cr4 = 0x10 if pse else 0
        else:
            cpu.cr4 = 0x20
            cpu.set_msr(0xC0000080, (0x800 if nxe else 0) | (0x101 if self.kind.bits == 64 else 0))
        cpu.cr3 = ROOT
        if user:
            cpu.set_segments(3, 0x0B, 0x13)
        cpu.cr0 = 0x80000011 | (1 << 16 if wp else 0)
        cpu.set("rsi", TARGET)
        cpu.set("rax", 0xCD)  # what a store leaves is still the first byte of int 0x80
        cpu.rip = CODE
        self.platform.fault = None

    def access(self, code: str) -> str:
        data = bytes.fromhex(code)
        self.machine.memory.write(CODE, data)
        self.machine.invalidate([(CODE, CODE + 16)])
        return self.machine.run(max_ns=100_000).reason


@pytest.fixture(scope="module")
def probers() -> Iterator[dict[MachineKind, Prober]]:
    made = {kind: Prober(kind) for kind in MachineKind}
    yield made
    for prober in made.values():
        prober.machine.close()


def entry() -> st.SearchStrategy[int]:
    """Mostly present and permissive entries with a few other bits."""
    usual = st.sets(st.sampled_from(FLAGS[:3]), min_size=1).map(sum)
    rare = st.one_of(st.just(0), st.just(0), st.sampled_from(FLAGS[3:]))
    return st.builds(lambda a, b, p: a | b | p, usual, rare, st.sampled_from([1, 1, 1, 0]))


@pytest.mark.parametrize("which", list(MachineKind))
@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    entries=st.lists(entry(), min_size=4, max_size=4),
    code=st.sampled_from([READ, WRITE, FETCH]),
    wp=st.booleans(),
    nxe=st.booleans(),
    pse=st.booleans(),
    user=st.booleans(),
)
def test_walk_agrees_with_the_cpu(
    which: MachineKind,
    probers: dict[MachineKind, Prober],
    entries: list[int],
    code: str,
    *,
    wp: bool,
    nxe: bool,
    pse: bool,
    user: bool,
) -> None:
    prober = probers[which]
    prober.start(entries, wp=wp, nxe=nxe, pse=pse, user=user)
    cpu = prober.cpu
    expected: tuple[int, int | None, int | None] | None = None
    pa = None
    try:
        pa = cpu.walk(TARGET, write=code == WRITE, fetch=code == FETCH).pa
    except GuestFault as fault:
        expected = (fault.vector, fault.error_code, fault.address)
    assert quickly(cpu, code) == (pa if expected is None else expected)
    if pa is not None and pa >= prober.machine.memory.size:
        assert prober.access(code) == "crash"
        return
    before = pa is not None and prober.machine.memory.u16(pa)
    assume(code != FETCH or pa is None or before == INT_80)  # a stray entry may lead into a table
    outcome = prober.access(code)
    if expected is None:
        assert outcome == "ok"
        assert pa is not None
        if code == READ:
            assert cpu.get("eax") & 0xFF == before & 0xFF
    else:
        assert outcome == "fault"
        assert prober.platform.fault == expected


def quickly(cpu: Vcpu, code: str) -> int | tuple[int, int | None, int | None]:
    """What the short way to an address says."""
    paging, user = cpu.virtual.paging()
    try:
        return paging.address(cpu.machine.memory, TARGET, Access(code == WRITE, user, code == FETCH))
    except GuestFault as fault:
        return fault.vector, fault.error_code, fault.address


def test_walk_leaves_accessed_and_dirty_bits_to_the_cpu(rig: Rig) -> None:
    at = rig.map(0x300000, 0x31000, 7)
    rig.cpu.write_virtual(0x300000, b"x")
    assert rig.memory.u32(at) & 0x60 == 0
    rig.code("a000003000 f4" if not rig.long else "8a042500003000 f4")
    assert rig.run() == "poweroff"
    assert rig.memory.u32(at) & 0x60 == 0x20
    rig.code("a200003000 f4" if not rig.long else "88042500003000 f4")
    rig.cpu.wake()
    rig.cpu.rip = 0x10000
    assert rig.run() == "poweroff"
    assert rig.memory.u32(at) & 0x60 == 0x60


def test_virtual_accesses_cross_pages_or_leave_everything_alone(rig: Rig) -> None:
    rig.map(0x300000, 0x31000, 7)
    rig.map(0x301000, 0x35000, 7)
    rig.cpu.write_virtual(0x300FFE, b"abcd")
    assert rig.memory.read(0x31FFE, 2) + rig.memory.read(0x35000, 2) == b"abcd"
    assert rig.cpu.read_virtual(0x300FFD, 5) == b"\0abcd"
    with pytest.raises(PageFault) as caught:
        rig.cpu.write_virtual(0x301FFE, b"wxyz")
    assert (caught.value.address, caught.value.error_code) == (0x302000, 2)
    assert rig.memory.read(0x35FFE, 2) == b"\0\0"


def test_virtual_accesses_follow_the_privilege_level(rig: Rig) -> None:
    rig.map(0x300000, 0x31000, 3)
    assert rig.cpu.u8(0x300000) == 0
    rig.cpu.set_segments(3, 0x23, 0x1B)
    assert rig.cpu.cpl == 3
    with pytest.raises(PageFault) as caught:
        rig.cpu.u8(0x300000)
    assert caught.value.error_code == 5


def test_non_canonical_is_general_protection(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    with pytest.raises(GuestFault) as caught:
        rig.cpu.u8(0x8000_0000_0000)
    assert (caught.value.vector, caught.value.error_code) == (13, 0)
