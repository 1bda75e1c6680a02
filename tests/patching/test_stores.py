"""Constants that code stores at fixed addresses, as compilers write it."""

from __future__ import annotations

import pytest

from pvops_core.patching.stores import constant_stores
from pvops_core.testing.assembly import assemble

CODE32 = {
    "mov dword ptr [0xc1001000], 0xc0100020": [(0xC1001000, 0xC0100020)],
    "mov eax, 0xc0100020; mov dword ptr [0xc1001000], eax": [(0xC1001000, 0xC0100020)],
    "mov edx, 7; mov ecx, 8; mov dword ptr [0xc1001000], edx; mov dword ptr [0xc1001004], ecx": [
        (0xC1001000, 7),
        (0xC1001004, 8),
    ],
    "xor ebx, ebx; mov dword ptr [0xc1001000], ebx": [(0xC1001000, 0)],
    "mov eax, 7; mov eax, dword ptr [0xc1002000]; mov dword ptr [0xc1001000], eax": [],
    "mov eax, 7; mov eax, ebx; mov dword ptr [0xc1001000], eax": [],
    "mov eax, 7; add eax, 1; mov dword ptr [0xc1001000], eax": [],
    "mov eax, 7; pop eax; mov dword ptr [0xc1001000], eax": [],
    "mov eax, 7; mov dword ptr [ebx + 4], eax; mov byte ptr [0xc1001000], 1": [],
}


@pytest.mark.parametrize("text", CODE32)
def test_32_bit_code(text: str) -> None:
    assert [*constant_stores(assemble(text, 32, 0xC0100000), 0xC0100000, 32)] == CODE32[text]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mov qword ptr [rip + 0x100], 0x7fff0000", 0x7FFF0000),
        ("mov qword ptr [rip + 0x100], -0x7f000000", 0xFFFFFFFF81000000),
        ("mov rax, -0x7f000000; mov qword ptr [rip + 0x100], rax", 0xFFFFFFFF81000000),
        ("mov r9, -0x7f000000; mov qword ptr [rip + 0x100], r9", 0xFFFFFFFF81000000),
        ("xor eax, eax; mov qword ptr [rip + 0x100], rax", 0),
        ("xor r9d, r9d; mov qword ptr [rip + 0x100], r9", 0),
        ("mov dword ptr [rip + 0x100], 5", None),
    ],
)
def test_64_bit_code(text: str, value: int | None) -> None:
    base = 0xFFFFFFFF81000000
    code = assemble(text, 64, base)
    expected = [] if value is None else [(base + len(code) + 0x100, value)]
    assert [*constant_stores(code, base, 64)] == expected


@pytest.mark.parametrize(("bits", "register", "kept"), [(32, "eax", 0), (32, "ebx", 1), (64, "r9", 0), (64, "r12", 1)])
def test_a_call_keeps_some_registers(bits: int, register: str, kept: int) -> None:
    store = "dword ptr [0x1000]" if bits == 32 else "qword ptr [rip + 0x10]"
    load, save = (assemble(text, bits, 0) for text in (f"mov {register}, 7", f"mov {store}, {register}"))
    assert len([*constant_stores(load + b"\xe8\0\0\0\0" + save, 0, bits)]) == kept


def test_code_that_is_none_ends_there() -> None:
    assert [*constant_stores(b"\x0f\xff\xff", 0, 32)] == []
    assert [*constant_stores(b"", 0, 64)] == []
