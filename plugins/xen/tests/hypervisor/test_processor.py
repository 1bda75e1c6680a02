"""What the processor does for a PV guest: checks in the style of the Xen Test Framework, in both widths."""

from __future__ import annotations

import struct
from typing import NamedTuple

import pytest
from pvops_xen.hypervisor.abi import Hypercall, VcpuOp
from pvops_xen.hypervisor.memory.entries import NX, USER
from pvops_xen.testing.contexts import guest_context
from pvops_xen.testing.guests import EVENT, KERNEL_SELECTORS, SYSCALL, SYSENTER, SmallGuest

DE, DB, BP, OF, BR, UD, NM, NP, SS, GP, PF = 0, 1, 3, 4, 5, 6, 7, 11, 12, 13, 14
TF = 1 << 8
FEP_CPUID = ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e\n cpuid"


VCPUS = 3


@pytest.fixture
def guest64(guests: dict[int, SmallGuest]) -> SmallGuest:
    guests[64].restart()
    return guests[64]


@pytest.fixture
def guest32(guests: dict[int, SmallGuest]) -> SmallGuest:
    guests[32].restart()
    return guests[32]


def name(g: SmallGuest, letter: str) -> str:
    """A general register of the guest's width."""
    return ("r" if g.bits == 64 else "e") + letter


class Fault(NamedTuple):
    """Code, the exception that it ends in, and how far from its start the frame says."""

    code: str
    vector: int
    error: int
    offset: int


FAULTS = [
    Fault("xor ecx, ecx\n div ecx", DE, 0, 2),
    Fault("int3", BP, 0, 1),
    Fault(".byte 0xf1", DB, 0, 1),
    Fault("ud2", UD, 0, 0),
    Fault("mov eax, 0x1000\n mov ds, eax", GP, 0x1000, 5),
    Fault("mov eax, 0x1004\n mov fs, eax", GP, 0x1004, 5),
    Fault("mov eax, 0x101b\n mov es, eax", GP, 0x1018, 5),
    Fault("int 0x20", GP, 0x102, 0),
    Fault("mov eax, [0x10000]", PF, 0, 0),
    Fault("mov dword ptr [0x10000], 1", PF, 2, 0),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[f.code.replace("\n", ";") for f in FAULTS])
def test_exceptions_name_the_instruction_and_the_error(guest: SmallGuest, fault: Fault) -> None:
    got = guest.execute(fault.code)
    assert (got.kind, got.vector, got.error) == ("trap", fault.vector, fault.error)
    assert got.address == guest.va("probe") + fault.offset
    assert got.selector == KERNEL_SELECTORS[guest.bits][0] & (~3 if guest.bits == 64 else ~0)


@pytest.mark.parametrize(
    ("write", "fetch", "present", "user", "error"),
    [
        (False, False, False, False, 0),
        (True, False, False, False, 2),
        (True, False, True, False, 3),
        (False, True, False, False, 0x10),
        (False, True, True, False, 0x11),
        (False, False, False, True, 4),
        (True, False, False, True, 6),
        (True, False, True, True, 7),
        (False, True, False, True, 0x14),
        (False, True, True, True, 0x15),
    ],
)
def test_page_fault_codes(
    guest: SmallGuest, *, write: bool, fetch: bool, present: bool, user: bool, error: int
) -> None:
    where = guest.va(1) if present else 0x10000
    if present:
        guest.update_va_mapping(guest.va(1), guest.entry(1) & ~2 | NX | USER)
    pointer = name(guest, "di")
    code = f"jmp {pointer}" if fetch else f"mov dword ptr [{pointer}], 1" if write else f"mov eax, [{pointer}]"
    run = guest.execute_as_user if user else guest.execute
    got = run(code, **{pointer: where})
    assert (got.vector, got.error, got.cr2) == (PF, error, where)
    assert got.address == (where if fetch else guest.va("probe"))


def test_a_kernel_page_is_not_for_processes(guest32: SmallGuest) -> None:
    got = guest32.execute_as_user(f"mov eax, [{guest32.va('kernel'):#x}]")
    assert (got.vector, got.error, got.cr2) == (PF, 5, guest32.va("kernel"))


@pytest.mark.parametrize(
    ("code", "vector", "offset"), [("mov al, 0x7f\n inc al\n into", OF, 5), ("mov eax, 9\n bound eax, [edi]", BR, 5)]
)
def test_exceptions_of_32_bits(guest32: SmallGuest, code: str, vector: int, offset: int) -> None:
    limits = guest32.put("data", struct.pack("<II", 0, 5))
    got = guest32.execute(code, edi=limits)
    assert (got.vector, got.address) == (vector, guest32.va("probe") + offset)


def test_segments_that_are_not_present(guest: SmallGuest) -> None:
    ring = 3 if guest.bits == 64 else 1
    absent = 0x00CF_1200_0000_FFFF | ring << 45
    guest.put(0, struct.pack("<3Q", 0, absent, absent | 1 << 47))
    guest.protect(0)
    assert guest.set_gdt(guest.mfn(0)) == 0
    got = guest.execute(f"mov eax, {8 | ring}\n mov es, eax")
    assert (got.vector, got.error) == (NP, 8)
    got = guest.execute(f"mov eax, {8 | ring}\n mov ss, eax")
    assert (got.vector, got.error) == (SS, 8)
    assert guest.execute(f"mov eax, {16 | ring}\n mov es, eax\n mov ss, eax").kind == "done"


def test_single_steps(guest: SmallGuest) -> None:
    stack = name(guest, "sp")
    got = guest.execute(f"pushf\n or dword ptr [{stack}], {TF}\n popf\n nop\n nop")
    assert got.vector == DB
    assert got.flags & TF
    assert guest.hv.memory.read(guest.mfn("probe") << 12, 32)[got.address - guest.va("probe") - 1] == 0x90
    assert guest.call(Hypercall.GET_DEBUGREG, 6) & 0xFFFF_FFFF == 0xFFFF_4FF0


def test_debug_registers(guest: SmallGuest) -> None:
    register = name(guest, "ax")
    got = guest.execute(
        f"mov {register}, 0x55\n mov dr1, {register}\n mov {register}, dr1\n mov ecx, eax\n mov {register}, dr7"
    )
    assert (got.registers[name(guest, "cx")], got.registers[register]) == (0x55, 0x400)
    assert guest.call(Hypercall.GET_DEBUGREG, 1) == 0x55
    assert guest.call(Hypercall.SET_DEBUGREG, 6, 0xFFFF_FFFF) == 0
    assert guest.call(Hypercall.GET_DEBUGREG, 6) & 0xFFFF_FFFF == 0xFFFF_EFFF
    assert guest.call(Hypercall.SET_DEBUGREG, 7, 1) == 0
    assert guest.call(Hypercall.GET_DEBUGREG, 5) == 0x401
    assert guest.execute(f"mov {register}, cr4\n or {register}, 8\n mov cr4, {register}").kind == "done"
    assert guest.call(Hypercall.GET_DEBUGREG, 5) == -19


def test_the_fpu_is_given_when_it_is_used(guest: SmallGuest) -> None:
    assert guest.call(Hypercall.FPU_TASKSWITCH, 1) == 0
    register = name(guest, "ax")
    assert guest.execute(f"mov {register}, cr0").registers[register] & 8
    got = guest.execute("fninit")
    assert (got.vector, got.address) == (NM, guest.va("probe"))
    assert guest.execute(f"fninit\n mov {register}, cr0").registers[register] & 8 == 0
    assert (
        guest.execute(f"mov {register}, cr0\n or {register}, 8\n mov cr0, {register}\n movups xmm0, xmm1").vector == NM
    )
    guest.call(Hypercall.FPU_TASKSWITCH, 1)
    assert guest.execute("clts\n movups xmm0, xmm1").kind == "done"
    guest.call(Hypercall.FPU_TASKSWITCH, 1)
    guest.call(Hypercall.FPU_TASKSWITCH, 0)
    assert guest.execute_as_user("fninit").vector != NM


@pytest.mark.parametrize("user", [False, True])
def test_the_forced_emulation_prefix(guest: SmallGuest, *, user: bool) -> None:
    run = guest.execute_as_user if user else guest.execute
    leaf = "mov eax, 0x40000000\n xor ecx, ecx\n"
    for code in (leaf + FEP_CPUID, leaf + "cpuid"):
        got = run(code)
        words = [got.registers[name(guest, letter)] for letter in ("bx", "cx", "dx")]
        assert struct.pack("<3I", *words) == b"XenVMMXenVMM"
    got = run(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e\n nop")
    assert (got.vector, got.address) == (UD, guest.va("probe"))


def test_cpuid_faulting(guest: SmallGuest) -> None:
    assert guest.execute("mov ecx, 0xce\n rdmsr").registers[name(guest, "ax")] >> 31 & 1
    enable = "mov ecx, 0x140\n mov eax, 1\n xor edx, edx\n wrmsr\n rdmsr"
    assert guest.execute(enable).registers[name(guest, "ax")] == 1
    assert guest.execute("cpuid").kind == "done"
    assert guest.execute(FEP_CPUID).kind == "done"
    got = guest.execute_as_user("cpuid")
    assert (got.vector, got.error, got.address) == (GP, 0, guest.va("probe"))
    got = guest.execute_as_user(FEP_CPUID)
    assert (got.vector, got.error, got.address) == (GP, 0, guest.va("probe") + 5)
    assert guest.execute("mov ecx, 0x140\n mov eax, 2\n xor edx, edx\n wrmsr").vector == GP
    assert guest.execute(enable.replace("eax, 1", "eax, 0")).kind == "done"
    assert guest.execute_as_user("cpuid").vector != GP


def test_system_calls_of_processes(guest64: SmallGuest) -> None:
    got = guest64.execute_as_user("mov eax, 77\n syscall", rdi=5)
    after = guest64.va("probe") + 7
    assert (got.vector, got.address, got.selector) == (SYSCALL, after, 0xE033)
    assert (got.registers["rcx"], got.registers["r11"] & 0x202) == (after, 0x202)
    assert (got.registers["rax"], got.registers["rdi"]) == (77, 5)
    got = guest64.execute_as_user("sysenter")
    assert (got.vector, got.address, got.selector) == (SYSENTER, 0, 3)


def test_registers_survive_an_exception(guest: SmallGuest) -> None:
    values = {name(guest, letters): 0x11 * i for i, letters in enumerate(("ax", "bx", "cx", "dx", "si", "di", "bp"), 1)}
    got = guest.execute("ud2", **values)
    assert {register: got.registers[register] for register in values} == values


@pytest.mark.parametrize("upcall", [False, True], ids=["hypercall", "upcall"])
def test_a_hypercall_by_syscall_leaves_the_flat_segments(guest64: SmallGuest, *, upcall: bool) -> None:
    """``lstar_enter``: whatever CS and SS the kernel was in; an upcall that comes of it has them in its frame."""
    g = guest64
    g.put(3, struct.pack("<2Q", 0x00AF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF), 4 * 8)
    g.protect(3)
    assert g.set_gdt(g.mfn(3)) == 0
    far = "mov eax, 0x2b\n mov ss, eax\n push 0x23\n lea rax, [rip + on]\n push rax\n .byte 0x48, 0xcb\n on:"
    call = "mov eax, 29\n mov edi, 1\n syscall" if upcall else "mov eax, 17\n xor edi, edi\n syscall"
    g.hv.memory.write(g.hv.domain.vcpus[0].info, bytes([upcall, 1]))
    got = g.execute(f"{far} mov ebx, cs\n mov esi, ss\n {call}\n mov edx, cs\n mov ecx, ss")
    registers = got.registers
    assert (registers["rbx"], registers["rsi"]) == (0x23, 0x2B)
    if upcall:
        ss = g.cpu.u64(registers["rsp"] + 48)
        assert (got.vector, got.selector, ss) == (EVENT, 0xE030, 0xE02B)
    else:
        assert (got.kind, registers["rdx"], registers["rcx"]) == ("done", 0xE033, 0xE02B)


@pytest.mark.parametrize("index", [1, 2])
def test_another_vcpu_comes_up(guest: SmallGuest, index: int) -> None:
    mark = guest.va("data") + 0x800
    raw = guest_context(guest, ss=KERNEL_SELECTORS[guest.bits][1], sp=guest.va(5))
    pointer = name(guest, "di")
    guest.place(f"mov {pointer}, {mark:#x}\n mov dword ptr [{pointer}], 0x1234\n l: pause\n jmp l")
    area = guest.put(6, raw[:4096])
    guest.put(7, raw[4096:] or b"\0")
    up = Hypercall.VCPU_OP
    assert guest.call(up, VcpuOp.UP, index, 0) == -22
    assert guest.call(up, VcpuOp.INITIALISE, index, area) == 0
    assert guest.call(up, VcpuOp.INITIALISE, index, area) == -17
    assert guest.call(up, VcpuOp.IS_UP, index, 0) == 0
    assert guest.call(up, VcpuOp.UP, index, 0) == 0
    assert guest.call(up, VcpuOp.IS_UP, index, 0) == 1
    guest.session.run(max_ns=1_000_000)
    assert guest.cpu.u32(mark) == 0x1234
    assert guest.call(up, VcpuOp.DOWN, index, 0) == 0
    assert guest.call(up, VcpuOp.IS_UP, index, 0) == 0


def test_a_selector_for_the_gs_of_processes(guest64: SmallGuest) -> None:
    g = guest64
    base = g.va("data")
    descriptor = 0x00CF_F300_0000_FFFF | (base & 0xFF_FFFF) << 16 | (base >> 24 & 0xFF) << 56
    g.put(0, struct.pack("<3Q", 0, 0, descriptor))
    g.protect(0)
    assert g.set_gdt(g.mfn(0)) == 0
    assert g.call(Hypercall.SET_SEGMENT_BASE, 2, 0x1234_5000) == 0
    assert g.call(Hypercall.SET_SEGMENT_BASE, 3, 0x10) == 0
    kernel = g.execute("mov eax, gs\n mov ebx, eax\n mov ecx, 0xc0000101\n rdmsr")
    assert (kernel.registers["rbx"], kernel.registers["rax"]) == (0x13, 0x1234_5000)
    assert g.hv.domain.vcpus[0].gs_base_user == base & 0xFFFF_FFFF
    assert g.call(Hypercall.SET_SEGMENT_BASE, 3, 0x1008) == 0
    assert g.execute("mov eax, gs").registers["rax"] == 0
    assert g.hv.domain.vcpus[0].gs_base_user == 0


def test_processes_have_the_gs_base_of_their_selector(guest64: SmallGuest) -> None:
    """32-bit processes of a 64-bit kernel have their thread's storage there."""
    g = guest64
    low = 0x40_0000
    descriptor = 0x00CF_F300_0000_FFFF | (low & 0xFF_FFFF) << 16
    g.put(0, struct.pack("<3Q", 0, 0, descriptor))
    g.protect(0)
    g.set_gdt(g.mfn(0))
    g.call(Hypercall.SET_SEGMENT_BASE, 3, 0x13)
    got = g.execute_as_user("mov eax, gs:[0x24]")
    assert (got.vector, got.cr2) == (PF, low + 0x24)
