"""What the disassembler says an instruction does, against what a processor does."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import unicorn
from unicorn import x86_const

from pvops_core.errors import PatchError
from pvops_core.patching.code.disasm import Flow, Instruction, disassemble, listing, normal

GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{number}" for number in range(8, 16)))
NUMBERS = [getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in GENERAL]
TEXT, DATA, SIZE, STACK = 0x100000, 0x200000, 0x10000, 0x204000
OUTSIDE = frozenset(
    "hlt syscall in out lldt ltr vmcall vmmcall wrmsr swapgs lmsw lidt lgdt rdpmc sti pop popfq".split()  # noqa: SIM905
)
"""Not run here: they leave the straight line or need more of a processor around them than this."""


def _instructions(count: int) -> Iterator[tuple[bytes, Instruction]]:
    """Instructions that the disassembler vouches for, drawn from the one-byte and two-byte opcodes."""
    draw = random.Random(2007)
    while count:
        opcode = draw.choice((b"", b"\x0f")) + bytes([draw.randrange(256)])
        code = draw.choice((b"", b"", b"\x48", b"\x66", b"\xf0", b"\x41")) + opcode + draw.randbytes(8)
        for size in range(1, len(code)):
            try:
                (insn,) = disassemble(code[:size], TEXT, 64)
            except (PatchError, ValueError):
                continue
            if insn.flow is Flow.ON and insn.mnemonic not in OUTSIDE:
                yield code[:size], insn
                count -= 1
            break


@pytest.fixture(scope="module")
def processor() -> unicorn.Uc:
    made = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    made.mem_map(TEXT, 0x1000)
    made.mem_map(DATA, SIZE)
    return made


def test_no_register_and_no_memory_changes_unsaid(processor: unicorn.Uc) -> None:
    draw = random.Random(1)
    tried = set()
    for code, insn in _instructions(1500):
        before = [draw.choice((DATA + 0x8000 + 8 * draw.randrange(16), draw.randrange(0x100))) for _ in GENERAL]
        for number, value in zip(NUMBERS, before, strict=True):
            processor.reg_write(number, value)
        processor.reg_write(x86_const.UC_X86_REG_RSP, STACK)
        processor.reg_write(x86_const.UC_X86_REG_EFLAGS, draw.choice((0x002, 0x8D7 & ~0x400)))
        processor.mem_write(TEXT, code)
        content = draw.randbytes(SIZE)
        processor.mem_write(DATA, content)
        try:
            processor.emu_start(TEXT, TEXT + len(code), count=1)
        except unicorn.UcError:
            continue
        tried.add(insn.mnemonic)
        after = [processor.reg_read(number) for number in NUMBERS]
        changed = {name for name, old, new in zip(GENERAL, before, after, strict=True) if old != new}
        assert changed <= insn.writes, insn.text
        moved = processor.reg_read(x86_const.UC_X86_REG_RSP) != STACK
        assert not moved or insn.moves_stack or insn.mnemonic.startswith("push"), insn.text
        now = bytes(processor.mem_read(DATA, SIZE))
        below = STACK - DATA - 8
        same = now[:below] == content[:below] and now[below + 8 :] == content[below + 8 :]
        assert same or any(memory.written for memory in insn.memory), insn.text
    assert len(tried) > 60


@pytest.mark.parametrize(
    ("code", "bits", "reads", "writes"),
    [
        ("85 07", 64, {"rax", "rdi"}, set()),
        ("0f 05", 64, set(), {"rcx", "r11"}),
        ("0f b1 17", 64, {"rax", "rdx", "rdi"}, {"rax"}),
        ("0f 30", 32, {"eax", "ecx", "edx"}, set()),
        ("0f a2", 32, {"eax", "ecx"}, {"eax", "ebx", "ecx", "edx"}),
        ("88 e0", 32, {"eax"}, {"eax"}),
        ("41 89 f8", 64, {"rdi"}, {"r8"}),
    ],
)
def test_registers_go_by_the_name_of_their_full_width(code: str, bits: int, reads: set[str], writes: set[str]) -> None:
    (insn,) = disassemble(bytes.fromhex(code), 0, bits)
    assert (insn.reads, insn.writes) == (reads, writes)


def test_an_address_relative_to_the_instruction_is_shown_and_kept_as_what_it_comes_to() -> None:
    (insn,) = disassemble(bytes.fromhex("803d f9 0f 00 00 00"), 0x1000, 64)
    assert insn.text == "cmp byte ptr [rel 0x2000], 0x0"
    assert (insn.memory[0].base, insn.memory[0].address) == (None, 0x2000)


def test_half_a_pointer_is_no_pointer() -> None:
    with pytest.raises(PatchError, match="edi is no whole pointer"):
        disassemble(bytes.fromhex("67 c6 07 00"), 0, 64)


def test_a_scaled_index_of_none_is_none() -> None:
    (insn,) = disassemble(bytes.fromhex("89 44 e7 07"), 0, 64)
    assert insn.memory[0].base == "rdi"
    assert insn.memory[0].index is None


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("MOV  EAX,DWORD PTR [0x10]", "mov eax, dword ptr [0x10]"),
        ("mov byte ptr fs:[16],1", "mov byte ptr fs:[0x10], 0x1"),
        ("out 128, al", "out 0x80, al"),
        ("mov eax, 010", "mov eax, 0xa"),
        ("lea rax, [ rdi+rsi*4 -8 ]", "lea rax, [rdi + rsi * 0x4 - 0x8]"),
        ("lea rax, [rdi-8]", "lea rax, [rdi - 0x8]"),
    ],
)
def test_ways_of_writing_come_to_one(text: str, same: str) -> None:
    assert normal(text) == same


@pytest.mark.parametrize("bits", [32, 64])
def test_a_listing_takes_any_bytes_and_loses_none(bits: int) -> None:
    draw = random.Random(bits)
    for size in range(64):
        code = draw.randbytes(size)
        lines = listing(code, TEXT, bits)
        assert b"".join(raw for _address, raw, _text in lines) == code
        assert [address for address, _raw, _text in lines] == [
            TEXT + sum(len(raw) for _address, raw, _text in lines[:number]) for number in range(len(lines))
        ]


def test_a_listing_goes_on_after_what_is_no_instruction() -> None:
    assert listing(bytes.fromhex("06 0f 0b fa"), 0x1000, 64) == [
        (0x1000, b"\x06", "(bad)"),
        (0x1001, b"\x0f\x0b", "ud2"),
        (0x1003, b"\xfa", "cli"),
    ]


@pytest.mark.parametrize(
    ("code", "written"),
    [
        ("488b03", [False]),  # mov rax, [rbx]
        ("488903", [True]),  # mov [rbx], rax
        ("480103", [True]),  # add [rbx], rax
        ("483903", [False]),  # cmp [rbx], rax
        ("488503", [False]),  # test [rbx], rax
        ("0fc703", None),  # no such instruction
        ("ff33", [False]),  # push [rbx]
        ("488d03", []),  # lea rax, [rbx]
    ],
)
def test_memory_that_is_only_read_is_told_from_memory_that_is_written(code: str, written: list[bool] | None) -> None:
    if written is None:
        with pytest.raises(PatchError):
            disassemble(bytes.fromhex(code), TEXT, 64)
        return
    (insn,) = disassemble(bytes.fromhex(code), TEXT, 64)
    assert [memory.written for memory in insn.memory] == written
