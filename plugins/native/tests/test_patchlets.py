"""native_patch of each generation, with the byte values of its kernels."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.ops import NativeOps
from pvops_native.patchlets import IDENTITIES, NATIVE_PATCHLETS, patchlets_of

from pvops_core.guest.names import SymbolNames
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS, Clobber
from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.patching.context import PatchContext
from pvops_core.patching.patchdefault import patch_site
from pvops_core.patching.patchlets import check, usual_length

ADDRESS = 0x1000_0000
NOP, BUG, TARGET = ADDRESS + 0x100, ADDRESS + 0x200, ADDRESS + 0x300
OLD = sorted(name for name in LAYOUTS if name.startswith("2.6."))
INLINED = {
    "irq_disable": "fa",
    "irq_enable": "fb",
    "restore_fl": "50 9d",
    "save_fl": "9c 58",
    "iret": "cf",
    "irq_enable_sysexit": "fb 0f 35",
    "read_cr2": "0f 20 d0",
    "write_cr3": "0f 22 d8",
    "read_cr3": "0f 20 d8",
    "clts": "0f 06",
    "read_tsc": "0f 31",
}


@attrs.frozen
class Machine:
    def keep(self, owner: object) -> None:
        del owner


@attrs.frozen
class Env:
    machine: Machine = Machine()
    guest: SymbolNames = attrs.field(factory=lambda: SymbolNames({}))


def patched(layout: str, op: str, original: bytes, clobbers: int = Clobber.ANY, target: int = TARGET) -> bytes:
    table = LAYOUTS[layout]
    slot = table.by_op(op)
    targets = [TARGET] * len(table.slots)
    targets[slot.type] = target
    kind = NopKind.GENERIC if table.kind.bits == 32 else NopKind.MODERN_64
    context = PatchContext(layout=table, targets=targets, nop_address=NOP, bug_address=BUG, nops=NOPS[kind])
    env: Any = Env()
    return patch_site(context, NativeOps(env).patch, slot.type, clobbers, original, ADDRESS)


@pytest.mark.parametrize("layout", OLD)
@pytest.mark.parametrize("op", INLINED)
def test_inlined_ops_of_2007(layout: str, op: str) -> None:
    code = bytes.fromhex(INLINED[op])
    length = usual_length(LAYOUTS[layout].by_op(op).op, LAYOUTS[layout])
    clobbers = LAYOUTS[layout].by_op(op).op.clobbers
    assert patched(layout, op, b"\xcc" * length, clobbers) == code + NOPS[NopKind.GENERIC](length - len(code))


@pytest.mark.parametrize("layout", OLD)
def test_conversions_are_nops_in_one_generation_and_calls_in_the_next(layout: str) -> None:
    for op in IDENTITIES:
        if op not in LAYOUTS[layout]:
            continue
        code = patched(layout, op, b"\xff\x15abcd")
        if layout.startswith("2.6.23"):
            assert code == NOPS[NopKind.GENERIC](6)
        else:
            assert code == b"\xe8" + (TARGET - ADDRESS - 5).to_bytes(4, "little") + b"\x90"


@pytest.mark.parametrize(("op", "length"), [("save_fl", 1), ("irq_enable_sysexit", 2), ("read_cr3", 2)])
def test_too_short_a_site_is_left_alone(op: str, length: int) -> None:
    original = b"\x12\x34"[:length]
    assert patched("2.6.23", op, original, Clobber.EAX) == original


def test_other_ops_get_the_default() -> None:
    call = b"\xe8" + (TARGET - ADDRESS - 5).to_bytes(4, "little") + b"\x90"
    assert patched("2.6.23", "cpuid", b"\xff\x15abcd") == call
    assert patched("2.6.23", "cpuid", b"\xff\x15abcd", Clobber.EAX) == b"\xff\x15abcd"
    assert patched("2.6.24", "cpuid", b"\xff\x15ab") == b"\xff\x15ab"
    assert patched("2.6.24", "alloc_pt", b"\xff\x15abcd", target=NOP) == NOPS[NopKind.GENERIC](6)
    assert patched("2.6.24", "post_allocator_init", b"\xff\x15abcd", target=0)[:2] == b"\x0f\x0b"


@pytest.mark.parametrize("layout", ["6.1-64", "6.1-32"])
def test_6_1_inlines_nothing(layout: str) -> None:
    for slot in LAYOUTS[layout].slots:
        assert patched(layout, slot.op.name, b"\xff\x15abcd")[0] == 0xE8
        assert patched(layout, slot.op.name, b"\xff\x15abcd", target=NOP)[0] != 0xE8
        target = BUG - ADDRESS - 5
        assert patched(layout, slot.op.name, b"\xff\x15abcd", target=0)[1:5] == target.to_bytes(4, "little")


@settings(max_examples=80, derandomize=True)
@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_no_site_is_ever_half_written(layout: str, data: st.DataObject) -> None:
    table = LAYOUTS[layout]
    ops = [slot.op.name for slot in table.slots if not slot.op.is_data]
    op = data.draw(st.sampled_from(ops))
    shortest = 1 if layout.startswith("2.6.") else 5
    original = data.draw(st.binary(min_size=shortest, max_size=20))
    clobbers = data.draw(st.integers(0, 7))
    code = patched(layout, op, original, clobbers)
    assert len(code) == len(original)


def test_every_patchlet_passes_the_check() -> None:
    for patchlet in NATIVE_PATCHLETS:
        served = [layout for layout in LAYOUTS.values() if patchlet.serves(layout)]
        assert served
        for layout in served:
            op = layout.by_op(patchlet.op).op
            check(patchlet, op, layout.kind, usual_length(op, layout))


def test_the_2019_table() -> None:
    wide = {op: patchlet.template.code.hex() for op, patchlet in patchlets_of(LAYOUTS["6.1-64"]).items()}
    assert wide["save_fl"] == "9c58"
    assert wide["write_cr3"] == "0f22df"
    assert wide["pte_val"] == wide["make_pgd"] == "4889f8"
    assert wide["wbinvd"] == "0f09"
    assert wide["queued_spin_unlock"] == "c60700"
    assert wide["vcpu_is_preempted"] == "4831c0"
    assert LAYOUTS["6.1-64"].kind is MachineKind.X86_64
