"""Payload files made by hand: what was put in is what a reader finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.kinds import MachineKind
from pvops_core.livepatch.payload.builder import ABSOLUTE, PayloadBuilder, Reference, expectation
from pvops_core.livepatch.payload.contents import BUILD_ID, FUNC, FUNCS, HOOKS
from pvops_core.livepatch.payload.model import OPAQUE_SIZE, HookPhase
from pvops_core.livepatch.payload.objects import read_object


def builder(kind: MachineKind) -> PayloadBuilder:
    return PayloadBuilder(kind, build_id=b"own", depends=b"before", host=b"host")


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE])
@given(codes=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5))
def test_functions_and_references_are_read_back(kind: MachineKind, codes: list[bytes]) -> None:
    made = builder(kind)
    for number, code in enumerate(codes):
        made.text(f"function{number}", code)
    made.data("table", bytes(kind.pointer_size), [Reference(0, "elsewhere", ABSOLUTE[kind.bits], 5)])
    item = read_object(made.build(), "payload", kind)
    text, data = item.section(".text"), item.section(".data")
    assert text is not None
    assert data is not None
    for number, code in enumerate(codes):
        symbol = next(each for each in item.symbols if each.name == f"function{number}")
        assert symbol.value % 16 == 0
        assert text.data[symbol.value : symbol.value + symbol.size] == code
    (relocation,) = item.relocations[data.index]
    assert item.symbols[relocation.symbol].name == "elsewhere"
    assert (relocation.offset, relocation.type) == (0, ABSOLUTE[kind.bits])
    assert relocation.addend == (5 if kind.bits == 64 else None)


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE])
def test_what_is_to_be_replaced_is_a_table_of_fixed_entries(kind: MachineKind) -> None:
    made = builder(kind)
    made.text("new", b"\xc3")
    made.replace("old", "new", old_size=9, expected=b"\x55")
    made.replace("gone", None, old_size=7, new_size=3)
    made.hook(HookPhase.LOAD, "new")
    item = read_object(made.build(), "payload", kind)
    funcs, hooks, note = item.section(FUNCS), item.section(HOOKS + "load"), item.section(BUILD_ID)
    assert funcs is not None
    assert hooks is not None
    assert note is not None
    first, second = FUNC[kind.bits].iter_unpack(funcs.data)
    assert (first[3], first[4], second[3], second[4]) == (1, 9, 3, 7)
    assert hooks.size == kind.pointer_size
    assert note.data.endswith(b"GNU\0own\0")


@given(expected=st.binary(max_size=OPAQUE_SIZE))
def test_an_expectation_is_enabled_if_there_are_bytes(expected: bytes) -> None:
    data = expectation(expected)
    assert len(data) == 1 + OPAQUE_SIZE
    assert data[0] == (1 | len(expected) << 1 if expected else 0)
    assert data[1:].startswith(expected)
