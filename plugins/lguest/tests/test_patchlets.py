"""lguest's patcher: its four templates, where they fit, and the kernel's default elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_lguest.patchlets import LGUEST_LAYOUTS, LGUEST_PATCHLETS

from pvops_core.ops import LAYOUTS, Clobber
from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.patching.context import PatchContext
from pvops_core.patching.patchlets import check_all, select

from .ops_rig import OpsHost
from .rig import BASE, DATA

if TYPE_CHECKING:
    from .conftest import MakeHost

WORD = (BASE + DATA).to_bytes(4, "little")
TEMPLATES = {
    "irq_disable": b"\xc7\x05" + WORD + bytes(4),
    "irq_enable": b"\xc7\x05" + WORD + b"\0\x02\0\0",
    "restore_fl": b"\xa3" + WORD,
    "save_fl": b"\xa1" + WORD,
}
SITE = 0xC0103000
TARGET = 0xC0105000


def context(layout_name: str, **slots: int) -> PatchContext:
    layout = LAYOUTS[layout_name]
    targets = [TARGET] * len(layout.slots)
    for op, target in slots.items():
        targets[layout.by_op(op).type] = target
    return PatchContext(
        layout=layout,
        targets=targets,
        nop_address=0xC0104000,
        bug_address=0,
        nops=NOPS[NopKind.GENERIC],
        patchlets=select(LGUEST_PATCHLETS, layout),
        symbols={"lguest_data": BASE + DATA},
    )


def patch(make_host: MakeHost, ctx: PatchContext, op: str, clobbers: int, original: bytes) -> tuple[int, bytes]:
    buffer = bytearray(original)
    type_number = ctx.layout.by_op(op).type
    used = OpsHost(make_host()).ops.patch(ctx, type_number, clobbers, buffer, SITE, len(original))
    return used, bytes(buffer)


def test_the_templates_are_what_they_say_and_as_long_as_measured() -> None:
    check_all(LGUEST_PATCHLETS)
    assert {patchlet.op: patchlet.size for patchlet in LGUEST_PATCHLETS} == {
        "irq_disable": 10,
        "irq_enable": 10,
        "restore_fl": 5,
        "save_fl": 5,
    }


@pytest.mark.parametrize("layout", LGUEST_LAYOUTS)
@pytest.mark.parametrize("op", TEMPLATES)
@pytest.mark.parametrize("length", [10, 13])
def test_a_template_goes_where_it_fits(make_host: MakeHost, layout: str, op: str, length: int) -> None:
    original = bytes(range(1, length + 1))
    used, code = patch(make_host, context(layout), op, Clobber.EAX, original)
    template = TEMPLATES[op]
    assert used == len(template)
    assert code == template + original[used:]


@pytest.mark.parametrize("op", ["irq_disable", "irq_enable"])
def test_a_site_too_short_is_left_alone(make_host: MakeHost, op: str) -> None:
    """The twelve 7-byte sites of 2.6.24: the template is too long, and a C call would destroy too much."""
    original = bytes.fromhex("51 52 ff 50 0c 5a 59")
    assert patch(make_host, context("2.6.24"), op, Clobber.EAX, original) == (7, original)


@pytest.mark.parametrize("op", ["irq_disable", "irq_enable"])
def test_a_short_site_that_may_lose_all_becomes_a_call(make_host: MakeHost, op: str) -> None:
    used, code = patch(make_host, context("2.6.24"), op, Clobber.ANY, bytes(7))
    assert used == 5
    assert code[:5] == b"\xe8" + (TARGET - SITE - 5).to_bytes(4, "little", signed=True)


def test_other_ops_go_the_default_way(make_host: MakeHost) -> None:
    ctx = context("2.6.23", pte_val=0xC0104000, set_ldt=0)
    assert patch(make_host, ctx, "write_cr3", Clobber.ANY, bytes(6))[1][0] == 0xE8
    assert patch(make_host, ctx, "iret", Clobber.NONE, bytes(7))[1][0] == 0xE9
    assert patch(make_host, ctx, "pte_val", Clobber.ANY, bytes(6))[0] == 0
    assert patch(make_host, ctx, "set_ldt", Clobber.ANY, bytes(6))[1][:2] == b"\x0f\x0b"


def test_after_a_switch_the_template_is_no_longer_used(make_host: MakeHost) -> None:
    """The switchboard takes the patchlet of an op away when someone else serves it."""
    full = context("2.6.24")
    ctx = PatchContext(
        layout=full.layout,
        targets=full.targets,
        nop_address=full.nop_address,
        bug_address=0,
        nops=full.nops,
        patchlets={op: patchlet for op, patchlet in full.patchlets.items() if op != "save_fl"},
        symbols=full.symbols,
    )
    assert patch(make_host, ctx, "save_fl", Clobber.ANY, bytes(10))[1][0] == 0xE8
    assert patch(make_host, ctx, "restore_fl", Clobber.EAX, bytes(10))[1][:5] == TEMPLATES["restore_fl"]
