"""Patchlets: true ones are taken, and each kind of lie or harm is refused with op, bytes and reason."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import PatchError
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS, Clobber, Convention, Op
from pvops_core.ops.declare import declare
from pvops_core.patching.patchdefault import LONGEST_SITE
from pvops_core.patching.patchlets import Patchlet, check, check_all, select, usual_length

I386 = MachineKind.I386
X86_64 = MachineKind.X86_64


def _c(declaration: str, convention: Convention = Convention.SYSV, clobbers: Clobber = Clobber.ANY) -> Op:
    return declare("cpu", "test", declaration, convention, clobbers)


CALLEE_SAVE = (Convention.CALLEE_SAVE, Clobber.EAX)
JUMP = (Convention.JUMP, Clobber.NONE)
TABLE_2019 = [
    (_c("void irq_disable(void)", *CALLEE_SAVE), X86_64, "cli", "fa"),
    (_c("void irq_enable(void)", *CALLEE_SAVE), X86_64, "sti", "fb"),
    (_c("unsigned long save_fl(void)", *CALLEE_SAVE), X86_64, "pushfq; pop rax", "9c 58"),
    (_c("void restore_fl(unsigned long flags)", *CALLEE_SAVE), X86_64, "push rdi; popfq", "57 9d"),
    (_c("unsigned long read_cr2(void)", *CALLEE_SAVE), X86_64, "mov rax, cr2", "0f 20 d0"),
    (_c("unsigned long read_cr3(void)"), X86_64, "mov rax, cr3", "0f 20 d8"),
    (_c("void write_cr3(unsigned long cr3)"), X86_64, "mov cr3, rdi", "0f 22 df"),
    (_c("void wbinvd(void)"), X86_64, "wbinvd", "0f 09"),
    (_c("void usergs_sysret64(void)", *JUMP), X86_64, "swapgs; sysretq", "0f 01 f8 48 0f 07"),
    (_c("void swapgs(void)"), X86_64, "swapgs", "0f 01 f8"),
    (_c("pteval_t pte_val(pte_t pte)", *CALLEE_SAVE), X86_64, "mov rax, rdi", "48 89 f8"),
    (_c("void irq_disable(void)", *CALLEE_SAVE), I386, "cli", "fa"),
    (_c("void irq_enable(void)", *CALLEE_SAVE), I386, "sti", "fb"),
    (_c("unsigned long save_fl(void)", *CALLEE_SAVE), I386, "pushfd; pop eax", "9c 58"),
    (_c("void restore_fl(unsigned long flags)", *CALLEE_SAVE), I386, "push eax; popfd", "50 9d"),
    (_c("unsigned long read_cr2(void)", *CALLEE_SAVE), I386, "mov eax, cr2", "0f 20 d0"),
    (_c("unsigned long read_cr3(void)", Convention.REGPARM3), I386, "mov eax, cr3", "0f 20 d8"),
    (_c("void write_cr3(unsigned long cr3)", Convention.REGPARM3), I386, "mov cr3, eax", "0f 22 d8"),
    (_c("void iret(void)", *JUMP), I386, "iretd", "cf"),
]


@pytest.mark.parametrize(("op", "kind", "asm", "code"), TABLE_2019)
def test_the_table_of_2019_is_true(op: Op, kind: MachineKind, asm: str, code: str) -> None:
    check(Patchlet(op.name, asm, code), op, kind, 6)


SEED_AND_LATER = [
    Patchlet("irq_enable_sysexit", "sti; sysexit", "fb 0f 35"),
    Patchlet("clts", "clts", "0f 06"),
    Patchlet("read_tsc", "rdtsc", "0f 31", layouts=("2.6*",)),
    Patchlet("pte_val", "", "", layouts=("2.6*",)),
    Patchlet("queued_spin_unlock", "mov byte ptr [rdi], 0", "c6 07 00", layouts=("6.1-64",)),
    Patchlet("queued_spin_unlock", "mov byte ptr [eax], 0", "c6 00 00", layouts=("6.1-32",)),
    Patchlet("vcpu_is_preempted", "xor rax, rax", "48 31 c0", layouts=("6.1-64",)),
    Patchlet("set_pte", "mov dword ptr [eax], edx", "89 10", layouts=("2.6.23", "2.6.23-lapic", "2.6.24")),
]
LGUEST = [
    Patchlet("irq_disable", "mov dword ptr [{data}], 0", "c7 05 {data:abs32} 00000000", layouts=("2.6*",)),
    Patchlet("irq_enable", "mov dword ptr [{data}], 0x200", "c7 05 {data:abs32} 00020000", layouts=("2.6*",)),
    Patchlet("restore_fl", "mov dword ptr [{data}], eax", "a3 {data:abs32}", layouts=("2.6*",)),
    Patchlet("save_fl", "mov eax, dword ptr [{data}]", "a1 {data:abs32}", layouts=("2.6*",)),
]
XEN_STYLE = [
    Patchlet("irq_disable", "mov byte ptr [{vcpu+1}], 1", "c6 05 {vcpu+1:abs32} 01", layouts=("2.6*",)),
    Patchlet(
        "irq_enable",
        "mov byte ptr [{vcpu+1}], 0; test byte ptr [{vcpu}], 1; je {.+21}; call {check_events}",
        "c6 05 {vcpu+1:abs32} 00  f6 05 {vcpu:abs32} 01  74 05  e8 {check_events:rel32}",
        layouts=("2.6*",),
        where_it_fits=True,
        keeping=("check_events",),
    ),
    Patchlet(
        "save_fl",
        "cmp byte ptr [rel {vcpu}], 0; sete ah; add ah, ah",
        "80 3d {vcpu-1:rel32} 00  0f 94 c4  00 e4",
        layouts=("6.1-64",),
        where_it_fits=True,
    ),
]


@pytest.mark.parametrize("patchlets", [SEED_AND_LATER, LGUEST, XEN_STYLE[:2]])
def test_what_kernels_inline_is_taken(patchlets: list[Patchlet]) -> None:
    check_all(patchlets)


SAVE = _c("unsigned long save_fl(void)", *CALLEE_SAVE)
DISABLE = _c("void irq_disable(void)", *CALLEE_SAVE)
VOID = _c("void io_delay(void)")
ONE = _c("void write_cr3(unsigned long cr3)")
READ = _c("unsigned long read_cr3(void)")
STORE = _c("void store_gdt(struct Xgt_desc_struct *dtr)")
LOAD = _c("void load_gdt(const struct desc_ptr *dtr)")
LEAVE = _c("void iret(void)", *JUMP)
IRQ_2_6 = _c("void irq_disable(void)", Convention.REGPARM3, Clobber.EAX)

LIES_AND_HARM = {
    "other bytes than the assembly": (DISABLE, X86_64, "cli", "fb", {}, "the bytes say 'sti', the assembly 'cli'"),
    "more bytes than the assembly": (DISABLE, X86_64, "cli", "fa 90", {}, "the bytes say 'cli; nop'"),
    "less bytes than the assembly": (DISABLE, X86_64, "cli; nop", "fa", {}, "the bytes say 'cli'"),
    "other operand": (ONE, X86_64, "mov cr3, rdi", "0f 22 de", {}, "mov cr3, rsi"),
    "other number": (VOID, X86_64, "out 0x80, al", "e6 81", {}, "out 0x81, al"),
    "bytes of the other mode": (SAVE, X86_64, "pushfd; pop eax", "9c 58", {}, "pushfq"),
    "half an instruction": (VOID, X86_64, "call rax", "ff", {}, "from 0 on are not a whole instruction"),
    "trailing garbage": (DISABLE, X86_64, "cli", "fa 0f", {}, "from 1 on"),
    "no hexadecimal": (DISABLE, X86_64, "cli", "zz", {}, "neither a byte in hexadecimal nor a place"),
    "odd hexadecimal": (DISABLE, X86_64, "cli", "fa f", {}, "neither a byte in hexadecimal nor a place"),
    "unknown place form": (DISABLE, X86_64, "cli", "{x:abs33}", {}, "'abs33' is not one of"),
    "assembly names what has no place": (DISABLE, X86_64, "mov dword ptr [{x}], 0", "fa", {}, "no place"),
    "place with another offset": (
        IRQ_2_6, I386, "mov byte ptr [{x+1}], 1", "c6 05 {x:abs32} 01", {}, "the bytes say",
    ),
    "too long": (ONE, X86_64, "mov cr3, rdi; nop; nop; nop; nop", "0f 22 df 90 90 90 90", {}, "7 bytes do not fit"),
    "destroys a callee-saved register": (SAVE, X86_64, "pushfq; pop rax; xor ebx, ebx", "9c 58 31 db", {}, "rbx"),
    "destroys what callee-save keeps": (SAVE, X86_64, "pushfq; pop rcx; mov rax, rcx", "9c 59 48 89 c8", {}, "rcx"),
    "destroys it silently": (VOID, X86_64, "mov al, 1; out 0x80, al", "b0 01 e6 80", {}, "rax, which the site keeps"),
    "says more than the site allows": (
        DISABLE, X86_64, "cli", "fa", {"clobbers": Clobber.ECX}, "the op's sites allow",
    ),
    "keeps too few registers in 2.6": (
        IRQ_2_6, I386, "cli; mov ecx, eax", "fa 89 c1", {"clobbers": Clobber.EAX}, "destroys ecx",
    ),
    "pops what it did not push": (SAVE, X86_64, "pop rax", "58", {}, "pops what it did not push"),
    "leaves a word on the stack": (SAVE, X86_64, "pushfq; pop rax; push rax", "9c 58 50", {}, "1 words on the stack"),
    "moves the stack": (VOID, X86_64, "add rsp, 8", "48 83 c4 08", {}, "moves the stack pointer"),
    "restores the wrong register": (
        VOID, X86_64, "push rbx; push rcx; pop rbx; pop rcx", "53 51 5b 59", {"clobbers": Clobber.ANY}, "destroys rbx",
    ),
    "gives back nothing": (READ, X86_64, "nop", "90", {}, "leaves rax as the result in rax"),
    "gives back what is no argument": (READ, X86_64, "mov rax, rbx", "48 89 d8", {}, "leaves rbx as the result"),
    "takes what is no argument": (ONE, X86_64, "mov cr3, rax", "0f 22 d8", {}, "uses rax, which holds no argument"),
    "takes flags that are no argument": (
        _c("void restore_fl(unsigned long flags)", *CALLEE_SAVE), X86_64, "push rax; popfq", "50 9d", {}, "uses rax",
    ),
    "writes memory of its own choice": (VOID, X86_64, "mov byte ptr [rbx], 0", "c6 03 00", {}, "rbx"),
    "writes memory at a fixed address": (
        IRQ_2_6, I386, "mov byte ptr [0x1234], 1", "c6 05 34 12 00 00 01", {}, "neither a place nor",
    ),
    "writes behind a const argument": (LOAD, X86_64, "mov byte ptr [rdi], 0", "c6 07 00", {}, "neither a place nor"),
    "writes behind a number": (ONE, X86_64, "mov byte ptr [rdi], 0", "c6 07 00", {}, "neither a place nor"),
    "writes below the stack pointer": (
        VOID, X86_64, "mov byte ptr [rsp - 8], 0", "c6 44 24 f8 00", {}, "neither a place nor",
    ),
    "exchanges with foreign memory": (VOID, X86_64, "lock inc dword ptr [rbx]", "f0 ff 03", {}, "rbx"),
    "returns from the caller": (VOID, X86_64, "ret", "c3", {}, "return from the caller"),
    "never comes back": (VOID, X86_64, "iretq", "48 cf", {}, "must come back"),
    "comes back where it may not": (LEAVE, X86_64, "nop", "90", {}, "must not come back"),
    "jumps away": (VOID, X86_64, "jmp {x}", "e9 {x:rel32}", {}, "must come back"),
    "jumps into itself": (VOID, X86_64, "jmp {.+3}; mov al, 0", "eb 01 b0 00", {}, "jumps to no instruction"),
    "jumps back": (VOID, X86_64, "nop; jmp {.+0}", "90 eb fd", {}, "might never end"),
    "jumps out": (VOID, X86_64, "je {.+64}", "74 3e", {}, "jumps to no instruction"),
    "calls the unknown": (VOID, X86_64, "call {.+64}", "e8 3b 00 00 00", {}, "does not name as a place"),
    "calls through a register": (ONE, X86_64, "call rdi", "ff d7", {}, "does not name as a place"),
    "calls C where registers are kept": (DISABLE, X86_64, "call {x}", "e8 {x:rel32}", {}, "which the site keeps"),
    "uses floating point": (VOID, X86_64, "movaps xmm0, xmm1", "0f 28 c1", {}, "not among the instructions"),
    "is not understood": (VOID, X86_64, "int3", "cc", {}, "not among the instructions"),
    "changes the interrupt flag": (VOID, X86_64, "cli", "fa", {}, "interrupt flag"),
    "puts back a changed interrupt flag": (VOID, X86_64, "cli; pushfq; popfq", "fa 9c 9d", {}, "interrupt flag"),
    "disables interrupts while reading them": (SAVE, X86_64, "pushfq; cli; pop rax", "9c fa 58", {}, "interrupt flag"),
    "is for data": (_c("unsigned int kernel_rpl"), I386, "nop", "90", {}, "never called"),
}  # fmt: skip


@pytest.mark.parametrize("fault", LIES_AND_HARM)
def test_a_planted_fault_is_refused_with_op_bytes_and_reason(fault: str) -> None:
    op, kind, asm, code, more, reason = LIES_AND_HARM[fault]
    with pytest.raises(PatchError, match=re.escape(reason)) as caught:
        check(Patchlet(op.name, asm, code, **more), op, kind, 6 if fault == "too long" else 32)
    assert caught.value.op == op.name
    if "hexadecimal" not in fault and "form" not in fault:
        bytes_ = re.sub(r"\{\w+([+-]\d+)?:\w+\}", "00000000", code)
        assert caught.value.code == bytes.fromhex(bytes_)


@pytest.mark.parametrize(
    ("asm", "code", "op"),
    [
        ("push rbx; mov rbx, rdi; mov cr3, rbx; pop rbx", "53 48 89 fb 0f 22 db 5b", ONE),
        ("push rax; push rdx; sgdt [rdi]; pop rdx; pop rax", "50 52 0f 01 07 5a 58", STORE),
        ("pushfq; cli; popfq", "9c fa 9d", VOID),
        ("test rdi, rdi; je {.+8}; mov cr3, rdi", "48 85 ff 74 03 0f 22 df", ONE),
        ("push rdi; call {x}; pop rdi", "57 e8 {x:rel32} 5f", ONE),
    ],
)
def test_what_is_put_back_is_not_destroyed(asm: str, code: str, op: Op) -> None:
    more = {"clobbers": Clobber.ANY} if "call" in asm else {}
    check(Patchlet(op.name, asm, code, **more), op, X86_64, 32)


def test_harm_on_one_of_two_paths_is_found() -> None:
    code = Patchlet("write_cr3", "test rdi, rdi; je {.+7}; xor ebx, ebx", "48 85 ff 74 02 31 db")
    with pytest.raises(PatchError, match="destroys rbx"):
        check(code, ONE, X86_64, 32)


def test_a_called_function_keeps_only_what_it_is_said_to_keep() -> None:
    asm, code = "call {x}", "e8 {x:rel32}"
    check(Patchlet("irq_disable", asm, code, keeping=("x",)), DISABLE, X86_64, 6)
    with pytest.raises(PatchError, match="destroys"):
        check(Patchlet("irq_disable", asm, code, keeping=("y",)), DISABLE, X86_64, 6)


def test_the_length_of_usual_sites_is_the_limit_unless_said_otherwise() -> None:
    long = LGUEST[0]
    with pytest.raises(PatchError, match="10 bytes do not fit into a site of 6"):
        check_all([Patchlet("write_cr2", "", "90" * 10, layouts=("2.6.23",))])
    check_all([long])
    assert usual_length(LAYOUTS["2.6.23"].by_op("iret").op, LAYOUTS["2.6.23"]) == 7
    assert usual_length(LAYOUTS["2.6.24"].by_op("save_fl").op, LAYOUTS["2.6.24"]) == 10
    assert usual_length(LAYOUTS["6.1-32"].by_op("io_delay").op, LAYOUTS["6.1-32"]) == 6
    nops = "; ".join(["nop"] * (LONGEST_SITE + 1))
    with pytest.raises(PatchError, match="255 bytes do not fit into a site of 254"):
        check_all([Patchlet("io_delay", nops, "90" * (LONGEST_SITE + 1), where_it_fits=True)])


@pytest.mark.parametrize(
    ("patchlet", "reason"),
    [
        (Patchlet("irq_disabled", "cli", "fa"), "no layout of * has this op"),
        (Patchlet("irq_disable", "cli", "fa", layouts=("8.*",)), "no layout of 8.* has this op"),
        (Patchlet("restore_fl", "push rdi; popfq", "57 9d", layouts=("6.1*",)), "has this op"),
        (Patchlet("pagetable_reserve", "nop", "90"), "has this op"),
    ],
)
def test_a_patchlet_for_nothing_is_refused(patchlet: Patchlet, reason: str) -> None:
    with pytest.raises(PatchError, match=re.escape(reason)):
        check_all([patchlet])


def test_one_op_has_one_patchlet_in_a_layout() -> None:
    both = [Patchlet("irq_disable", "cli", "fa"), Patchlet("irq_disable", "cli", "fa", layouts=("6.1-64",))]
    with pytest.raises(PatchError, match=r"second patchlet of the op for layout 6\.1-64"):
        check_all(both)
    assert set(select(both[1:], LAYOUTS["6.1-64"])) == {"irq_disable"}
    assert not select(both[1:], LAYOUTS["2.6.23"])


ADDRESSES = st.integers(min_value=0xFFFFFFFF80000000, max_value=0xFFFFFFFFFF000000)


@given(ADDRESSES, ADDRESSES)
def test_a_relative_place_counts_from_where_the_code_will_be(address: int, target: int) -> None:
    call = Patchlet("io_delay", "call {f}", "e8 {f:rel32}")
    if abs(target - address) < 1 << 31:
        code = call.assemble(address, {"f": target})
        assert code[0] == 0xE8
        assert address + 5 + int.from_bytes(code[1:], "little", signed=True) == target


@given(ADDRESSES, st.integers(min_value=0, max_value=255))
def test_an_absolute_place_is_the_sign_extended_address(target: int, addend: int) -> None:
    code = Patchlet("x", "", f"a1 {{v+{addend}:abs32}}").assemble(0, {"v": target})
    assert int.from_bytes(code[1:], "little", signed=True) % (1 << 64) == target + addend


@pytest.mark.parametrize(
    ("code", "symbols", "reason"),
    [
        ("e8 {f:rel32}", {}, "no symbol f"),
        ("e8 {f:rel32}", {"f": 1 << 40}, "f does not fit into rel32"),
        ("74 {f:rel8}", {"f": 0x200}, "f does not fit into rel8"),
        ("a1 {f:abs32}", {"f": 1 << 33}, "f does not fit into abs32"),
        ("6a {f:abs8}", {"f": 256}, "f does not fit into abs8"),
    ],
)
def test_a_place_that_cannot_be_filled_is_refused(code: str, symbols: dict[str, int], reason: str) -> None:
    with pytest.raises(PatchError, match=reason) as caught:
        Patchlet("write_cr3", "", code).assemble(0x1000, symbols)
    assert caught.value.op == "write_cr3"
    assert caught.value.address == 0x1000


@given(st.binary(max_size=12), st.text(alphabet="abcdefghimnoprstuvx ;,[]{}0123456789+-", max_size=30))
def test_no_bytes_and_no_text_get_past_but_as_a_patch_error(code: bytes, asm: str) -> None:
    with contextlib.suppress(PatchError):
        check(Patchlet("io_delay", asm, code.hex()), VOID, X86_64, 12)
        assert not code or asm.strip(" ;")


@given(st.text(max_size=40))
def test_no_template_gets_past_but_as_a_patch_error(code: str) -> None:
    with contextlib.suppress(PatchError):
        assert Patchlet("io_delay", "", code).size <= len(code)
