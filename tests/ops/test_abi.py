"""Calling conventions: arguments and results found where compilers put them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS, Convention, Op, signature
from pvops_core.ops.ctypes import CType
from pvops_core.ops.declare import declare

CALLS = sorted(
    {
        (layout.name, slot.op.name, layout.kind)
        for layout in LAYOUTS.values()
        for slot in (*layout.slots, *layout.boot_hooks)
    },
    key=str,
)


def _op(layout: str, name: str) -> Op:
    return LAYOUTS[layout].by_op(name).op


def _places(layout: str, name: str, kind: MachineKind) -> list[tuple[str, ...] | int | None]:
    return [place.registers or place.stack for place in signature(_op(layout, name), kind).places]


@pytest.mark.parametrize(
    ("layout", "op", "kind", "places"),
    [
        ("2.6.23", "write_cr3", MachineKind.I386, [("eax",)]),
        ("2.6.23", "cpuid", MachineKind.I386, [("eax",), ("edx",), ("ecx",), 4]),
        ("2.6.23", "patch", MachineKind.I386, [("eax",), ("edx",), ("ecx",), 4, 8]),
        ("2.6.23", "set_pte_at", MachineKind.I386, [("eax",), ("edx",), ("ecx",), 4]),
        ("2.6.23-lapic-pae", "set_pte", MachineKind.PAE, [("eax",), ("edx", "ecx")]),
        ("2.6.23-lapic-pae", "set_pte_at", MachineKind.PAE, [("eax",), ("edx",), ("ecx",), 4]),
        ("2.6.23-lapic-pae", "pte_val", MachineKind.PAE, [("eax", "edx")]),
        ("2.6.24", "write_msr", MachineKind.I386, [("eax",), ("edx",), ("ecx",)]),
        ("2.6.24", "pagetable_reserve", MachineKind.I386, [("eax", "edx"), 4]),
        ("6.1-64", "write_gdt_entry", MachineKind.X86_64, [("rdi",), ("rsi",), ("rdx",), ("rcx",)]),
        ("6.1-64", "patch", MachineKind.X86_64, [("rdi",), ("rsi",), ("rdx",), ("rcx",), ("r8",)]),
        ("6.1-32", "notify_page_enc_status_changed", MachineKind.PAE, [("eax",), ("edx",), ("ecx",)]),
    ],
)
def test_arguments_lie_where_the_compiler_puts_them(
    layout: str, op: str, kind: MachineKind, places: list[tuple[str, ...] | int]
) -> None:
    assert _places(layout, op, kind) == places


@pytest.mark.parametrize(
    ("layout", "op", "kind", "result"),
    [
        ("2.6.23", "save_fl", MachineKind.I386, ("eax",)),
        ("2.6.23", "read_tsc", MachineKind.I386, ("eax", "edx")),
        ("2.6.23", "pte_val", MachineKind.I386, ("eax",)),
        ("2.6.23-lapic-pae", "make_pgd", MachineKind.PAE, ("eax", "edx")),
        ("6.1-64", "read_msr", MachineKind.X86_64, ("rax",)),
        ("6.1-64", "write_msr", MachineKind.X86_64, ()),
    ],
)
def test_results_are_in_the_return_registers(layout: str, op: str, kind: MachineKind, result: tuple[str, ...]) -> None:
    assert signature(_op(layout, op), kind).result == result


@given(st.sampled_from(CALLS), st.data())
def test_what_a_caller_passes_comes_out_again(call: tuple[str, str, MachineKind], data: st.DataObject) -> None:
    layout, name, kind = call
    op = _op(layout, name)
    called = signature(op, kind)
    word = kind.pointer_size
    garbage = st.integers(min_value=0, max_value=(1 << kind.bits) - 1)
    registers = {register: data.draw(garbage) for register in called.registers}
    stack = [data.draw(garbage) for _ in range(called.stack_words)]
    passed = []
    for place in called.places:
        low = -(1 << (place.bits - 1)) if place.signed else 0
        value = data.draw(st.integers(min_value=low, max_value=low + (1 << place.bits) - 1))
        passed.append(value)
        size = -(-place.bits // 8)
        image = (value % (1 << place.bits)).to_bytes(size, "little")
        if place.stack is None:
            for number, register in enumerate(place.registers):
                part = image[number * word : (number + 1) * word]
                # A narrow argument leaves the rest of its register as it was.
                kept = registers[register].to_bytes(word, "little")[len(part) :]
                registers[register] = int.from_bytes(part + kept, "little")
        else:
            memory = bytearray(b"".join(value.to_bytes(word, "little") for value in stack))
            memory[place.stack - word : place.stack - word + size] = image
            stack = [int.from_bytes(memory[i : i + word], "little") for i in range(0, len(memory), word)]
    assert called.arguments([registers[name] for name in called.registers], stack) == tuple(passed)


@given(st.sampled_from(CALLS))
def test_no_register_and_no_stack_word_is_used_twice(call: tuple[str, str, MachineKind]) -> None:
    layout, name, kind = call
    called = signature(_op(layout, name), kind)
    assert len(set(called.registers)) == len(called.registers)
    offsets = [place.stack for place in called.places if place.stack is not None]
    assert offsets == sorted(set(offsets))
    assert [place.name for place in called.places] == [arg.name for arg in called.op.args]


@given(st.sampled_from(CALLS), st.integers())
def test_a_result_is_cut_to_its_type(call: tuple[str, str, MachineKind], value: int) -> None:
    layout, name, kind = call
    called = signature(_op(layout, name), kind)
    words = called.results(value)
    joined = sum(word << (number * kind.bits) for number, word in enumerate(words))
    assert joined == value % (1 << called.result_bits) if called.result else words == ()
    assert all(0 <= word < 1 << kind.bits for word in words)


@given(st.sampled_from(CALLS))
def test_what_may_be_lost_follows_the_convention(call: tuple[str, str, MachineKind]) -> None:
    layout, name, kind = call
    op = _op(layout, name)
    lost = signature(op, kind).clobbers
    expected = {
        Convention.REGPARM3: {"eax", "ecx", "edx"},
        Convention.SYSV: {"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"},
        Convention.CALLEE_SAVE: {"rax"} if kind is MachineKind.X86_64 else {"eax", "edx"},
        Convention.JUMP: set(),
        Convention.NONE: set(),
    }
    assert lost == expected[op.convention]


@pytest.mark.parametrize(
    ("name", "i386", "pae", "x86_64"),
    [
        ("unsigned long", 32, 32, 64),
        ("pte_t", 32, 64, 64),
        ("phys_addr_t", 32, 64, 64),
        ("u64", 64, 64, 64),
        ("int", 32, 32, 32),
        ("const struct cpumask *", 32, 32, 64),
        ("bool", 8, 8, 8),
    ],
)
def test_types_are_as_wide_as_the_machine_says(name: str, i386: int, pae: int, x86_64: int) -> None:
    ctype = CType(name)
    assert [ctype.bits(kind) for kind in (MachineKind.I386, MachineKind.PAE, MachineKind.X86_64)] == [i386, pae, x86_64]


def test_an_unknown_type_is_no_type() -> None:
    with pytest.raises(ValueError, match="not known"):
        CType("struct pte")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prototype_reads_back_as_the_same_op(layout: str) -> None:
    for slot in LAYOUTS[layout].slots:
        op = slot.op
        again = declare(op.group, op.source, op.prototype, op.convention, op.clobbers)
        assert again == op


@pytest.mark.parametrize("name", ["2.6.24", "6.1-64", "6.12-64", "7.2-64"])
@pytest.mark.parametrize("op", ["write_msr", "write_msr_safe"])
def test_an_msrs_value_is_whole_and_in_halves_in_every_generation(name: str, op: str) -> None:
    layout = LAYOUTS[name]
    if op not in layout:
        return
    how = signature(layout.by_op(op), layout.kind)
    held = {"ecx": 0x11223344, "edx": 0x55667788, "eax": 0x1B}
    if layout.kind is MachineKind.X86_64:
        held = {"rdi": 0x1B, "rsi": 0x55667788, "rdx": 0x11223344}
        if name == "7.2-64":
            held["rsi"] |= 0x11223344 << 32
    values = how.arguments_and_views([held[register] for register in how.registers])
    named = dict(zip([place.name for place in (*how.places, *how.views)], values, strict=True))
    assert named == {"msr": 0x1B, "low": 0x55667788, "high": 0x11223344, "val": 0x1122334455667788}


@given(st.sampled_from(CALLS))
def test_only_writes_of_msrs_have_views(call: tuple[str, str, MachineKind]) -> None:
    layout, name, kind = call
    assert bool(signature(_op(layout, name), kind).views) == name.startswith("write_msr")


def test_what_an_op_does_is_said_by_its_hook() -> None:
    assert LAYOUTS["6.1-64"].by_op("write_cr3").op.doc.startswith("Load a page-table base, at every switch of address")
    assert all(slot.op.doc.endswith(".") for layout in LAYOUTS.values() for slot in layout.slots)
