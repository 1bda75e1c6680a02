"""Which vector a non-canonical address gives: #SS through the stack segment, #GP through any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import GuestFault, MachineKind
from pvops_core.testing.assembly import assemble
from pvops_core.x86 import GP, SS
from tests.machine.conftest import CODE, DATA, STACK, USER_CODE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.conftest import Rig

BAD = 0x8000_0040_0000_0000
LOWER_END = 1 << 47

# rcx holds a non-canonical address, rbx one that is, r12 and rdx the like.
THROUGH_STACK = [
    *("mov rbp, rcx; mov eax, [rbp]", "mov rbp, rcx; mov [rbp + 8], al", "mov rbp, rcx; add qword ptr [rbp], 1"),
    *("mov eax, [rsp + rcx]", "mov rbp, rbx; mov eax, [rbp + rcx * 1]", "mov rbp, rcx; movups xmm0, [rbp]"),
    *("mov rbp, rcx; leave", "mov rsp, rcx; push rax", "mov rsp, rcx; push 5", "mov rsp, rcx; pushfq"),
    *("mov rsp, rcx; pop rax", "mov rsp, rcx; popfq", "mov rsp, rcx; ret", "mov rsp, rcx; ret 8"),
    *(
        "mov rsp, rcx; .byte 0xe8, 0, 0, 0, 0",
        "mov rsp, rcx; call rax",
        "mov rsp, rcx; call [rbx]",
        "mov rsp, rcx; push [rbx]",
    ),
    *("mov rsp, rcx; iretq", "mov rsp, rcx; .byte 0x48, 0xcb", "mov rsp, rcx; .byte 0xcb", "mov rsp, rcx; pop [rbx]"),
    *("mov rsp, rcx; enter 16, 0", "mov rsp, rcx; enter 16, 3", "mov rbp, rcx; enter 16, 3", "mov rsp, rcx; pop [rcx]"),
    *("mov rsp, rcx; push ax", "mov rsp, rcx; push fs", "mov rsp, rcx; pop gs", "mov rbp, rcx; call [rbp]"),
    *("mov rbp, rcx; .byte 0x3e; mov eax, [rbp]", "mov rbp, rcx; lock xadd [rbp], eax", "mov rbp, rcx; pop [rbp]"),
    *(
        "mov rbp, rcx; fld qword ptr [rbp]",
        "mov rbp, rcx; cmpxchg16b [rbp]",
        "mov rbp, rcx; .byte 0x26; inc dword ptr [rbp]",
    ),
    *(f"mov rsp, {LOWER_END - 4:#x}; pop rax", f"mov rsp, {LOWER_END + 4:#x}; push rax"),
    *("mov rbp, rbx; mov rdx, 1 << 62; btc [rbp], rdx", "mov rbp, rbx; mov rdx, 1 << 63; bt [rbp], rdx"),
]
THROUGH_ANOTHER = [
    *("mov eax, [rcx]", "mov [rcx], eax", "mov eax, [rbx + rcx * 1]"),
    *("mov rbp, rcx; mov eax, fs:[rbp]", "mov rbp, rcx; mov gs:[rbp], eax", "mov eax, fs:[rsp + rcx]"),
    *("mov r12, rcx; mov eax, [r12]", "mov r13, rcx; mov eax, [r13]", "mov rbp, rcx; mov eax, [rbx + rbp * 1]"),
    *("push [rcx]", "pop [rcx]", "call [rcx]", "jmp [rcx]", "mov rsp, rcx; push [rcx]", "mov rsp, rcx; call [rcx]"),
    *("mov rsi, rcx; lodsb", "mov rdi, rcx; stosb", "mov rdi, rcx; rep movsb", "mov rbx, rcx; xlatb"),
    *(".byte 0x36; mov eax, [rcx]", "movabs eax, [0x8000004000000000]", "movups [rcx], xmm0"),
    *(f"mov rdx, {LOWER_END - 2:#x}; mov eax, [rdx]", "jmp rcx", "mov rdi, rcx; mov rsp, rcx; cmpsb"),
    "mov rdx, 1 << 62; bts [rbx], rdx",
]  # fmt: skip
CASES = [*((text, SS) for text in THROUGH_STACK), *((text, GP) for text in THROUGH_ANOTHER)]


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    rig = make_rig(MachineKind.X86_64)
    rig.platform.on_exception = lambda *_: rig.machine.stop("seen") or True  # type: ignore[func-returns-value]
    return rig


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize(("text", "vector"), CASES)
def test_the_segment_of_the_operand_decides(rig: Rig, text: str, vector: int, level: int) -> None:
    *before, last = (part.strip() for part in text.split(";"))
    if before and before[-1].startswith(".byte"):
        last = f"{before.pop()}; {last}"
    at = USER_CODE if level else CODE
    ready = assemble("; ".join(before), 64, at) if before else b""
    rig.code(ready + assemble(last, 64, at + len(ready)) + b"\xf4", at)
    if level:
        rig.user()
    for name, value in {"rcx": BAD, "rbx": DATA, "rax": DATA}.items():
        rig.cpu.set(name, value)
    assert rig.run() == "seen"
    ((seen, error, address, rip),) = rig.platform.seen
    assert (seen, error, address) == (vector, 0, None)
    assert rip == (BAD if last == "jmp rcx" else at + len(ready))


@pytest.mark.parametrize("text", ["lgdt [rbp]", "lidt [rbp]", "lldt [rbp]", "ltr [rbp]", "lmsw [rbp]"])
def test_what_level_3_may_not_do_is_refused_before_the_operand_is_looked_at(rig: Rig, text: str) -> None:
    rig.code(assemble(text) + b"\xf4", USER_CODE)
    rig.user()
    rig.cpu.set("rbp", BAD)
    assert rig.run() == "seen"
    assert rig.platform.seen == [(GP, 0, None, USER_CODE)]


@pytest.mark.parametrize("text", ["mov ax, 0; mov ss, ax", "mov rbp, rcx; hlt", "mov rsp, rcx; mov cr3, rcx; nop"])
def test_other_causes_stay_what_they_are(rig: Rig, text: str) -> None:
    rig.code(assemble(text), USER_CODE)
    rig.user()
    rig.cpu.set("rcx", BAD)
    assert rig.run() == "seen"
    assert rig.platform.seen[0][:3] == (GP, 0, None)


def test_code_of_32_bits_has_no_such_addresses(make_rig: Callable[..., Rig], kind: MachineKind) -> None:
    rig = make_rig(kind)
    rig.platform.on_exception = lambda *_: rig.machine.stop("seen") or True  # type: ignore[func-returns-value]
    rig.code("0f22d8", USER_CODE)
    rig.user()
    rig.cpu.set("rbp", BAD)
    assert rig.run() == "seen"
    assert rig.platform.seen == [(GP, 0, None, USER_CODE)]


@pytest.mark.parametrize("name", ["push", "pop", "ret", "iret"])
def test_python_that_acts_for_the_guest_faults_alike(rig: Rig, name: str) -> None:
    rig.cpu.rsp = BAD
    with pytest.raises(GuestFault) as caught:
        rig.cpu.push(1) if name == "push" else getattr(rig.cpu, name)()
    assert (caught.value.vector, caught.value.error_code) == (SS, 0)
    assert rig.cpu.rsp == BAD
    rig.cpu.rsp = STACK
    with pytest.raises(GuestFault) as caught:
        rig.cpu.u64(BAD)
    assert caught.value.vector == GP
