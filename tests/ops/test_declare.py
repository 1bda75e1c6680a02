"""C declarations become ops, and a later generation differs from the one before where it says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS
from pvops_core.ops.declare import changed, declare, in_order
from pvops_core.ops.model import Clobber, Convention

HEADER = "asm/one.h"
TABLE = {"cpu": ["void one(void)", "u64 two(u32 a, unsigned long *b)"], "mmu": ["pte_t three(pteval_t val)"]}


def table(callee_save: frozenset[str] = frozenset()) -> list[str]:
    return [op.prototype for op in in_order(HEADER, TABLE, Convention.SYSV, callee_save).values()]


def test_a_table_has_its_ops_in_order() -> None:
    assert table() == [text for group in TABLE.values() for text in group]


def test_callee_save_ops_lose_the_result_register_alone() -> None:
    ops = in_order(HEADER, TABLE, Convention.SYSV, frozenset({"three"}))
    assert [(op.convention, op.clobbers) for op in ops.values()] == [
        (Convention.SYSV, Clobber.ANY),
        (Convention.SYSV, Clobber.ANY),
        (Convention.CALLEE_SAVE, Clobber.EAX),
    ]


@given(st.dictionaries(st.sampled_from(["one", "two", "three"]), st.lists(st.integers(0, 99), unique=True, max_size=3)))
def test_a_later_table_has_others_in_their_places(drawn: dict[str, list[int]]) -> None:
    before = in_order(HEADER, TABLE, Convention.SYSV, frozenset())
    changes = {name: [f"void {name}_{number}(void)" for number in numbers] for name, numbers in drawn.items()}
    after = changed(before, "asm/later.h", Convention.SYSV, changes)
    wanted = [name for op in before for name in ([f"{op}_{n}" for n in drawn[op]] if op in drawn else [op])]
    assert list(after) == wanted
    assert all(op.source == (HEADER if name in before else "asm/later.h") for name, op in after.items())
    groups = [op.group for op in after.values()]
    assert groups == sorted(groups), "each stays in the group of the one in whose place it stands"


def test_a_slot_that_is_no_function_takes_no_arguments() -> None:
    op = declare("info", HEADER, "const char *name", Convention.REGPARM3)
    assert op.is_data
    assert (op.prototype, op.convention, op.args) == ("const char *name", Convention.NONE, ())


@pytest.mark.parametrize("text", ["void broken(int)", "void broken(,)"])
def test_an_argument_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not declare an argument|C type"):
        declare("cpu", HEADER, text, Convention.SYSV)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_op_is_of_the_group_whose_struct_has_it(name: str) -> None:
    for slot in LAYOUTS[name].slots:
        group, dot, _member = slot.path.partition(".")
        assert not dot or group.removeprefix("pv_").removesuffix("_ops") == slot.op.group, slot.path


def test_a_32_bit_kernel_has_what_is_left_without_xen() -> None:
    assert LAYOUTS["6.1-32"].kind is MachineKind.PAE
    assert {slot.op.name for slot in LAYOUTS["6.1-32"].slots} < {slot.op.name for slot in LAYOUTS["6.1-64"].slots}
