"""The ops that a hook test is first written for, on every backend that has them: as the documentation shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session
    from pvops_core.testing.call import Caller
    from pvops_core.testing.patched import PatchCaller

pytestmark = pytest.mark.pvops_backends("native", "xen", "lguest")


# write_cr3


def test_write_cr3_flushes_and_changes_nothing_else(call: Caller) -> None:
    root = call("read_cr3").result
    done = call("write_cr3", root)
    assert not done.changes
    assert done.flushes or done.hypercalls


@pytest.mark.pvops_needs("mmu.pseudo_physical")
@pytest.mark.pvops_kinds("x86_64")
def test_write_cr3_loads_both_roots(call: Caller) -> None:
    done = call("write_cr3", call("read_cr3").result)
    assert done.hypercalls == {"multicall": 1, "mmuext_op": 2}


# pgd_val


def test_pgd_val_gives_back_what_make_pgd_was_given(call: Caller) -> None:
    meant = call.physical(call.page()) | 0x67
    done = call("pgd_val", call("make_pgd", meant).result)
    assert done.result == meant
    assert not done.changes
    assert not done.hypercalls


# pagetable_reserve


@pytest.mark.pvops_at("op:pagetable_reserve")
@pytest.mark.pvops_layouts("2.6.24*", "6.1-64")
def test_pagetable_reserve_gives_the_spare_pages_back(call: Caller, vcpu: Vcpu, session: Session) -> None:
    start, end, top = (vcpu.u64(session.guest.symbols[f"pgt_buf_{name}"]) << 12 for name in ("start", "end", "top"))
    done = call("pagetable_reserve", start, end)
    assert [event.kind for event in done.events if event.kind == "memblock-reserve"]
    for page in range(end, top, 0x1000):
        call.store(call.virtual(page), 1)


# patch


@pytest.mark.pvops_backends("native")
@pytest.mark.pvops_layouts("2.6.24", "2.6.24-pae")
def test_native_patches_the_interrupt_flag_inline(patch: PatchCaller) -> None:
    assert patch("irq_disable").assembles_to("cli")
    assert patch("save_fl").assembles_to("pushfd; pop eax")
    assert patch("write_cr3").assembles_to("mov cr3, eax")
    assert patch("write_cr3").fits(6)


@pytest.mark.pvops_backends("native")
@pytest.mark.pvops_layouts("6.1-64")
def test_alternatives_inline_what_the_patch_step_called(patch: PatchCaller) -> None:
    assert patch("write_cr3").form == "call"
    assert patch.site("write_cr3").assembles_to("mov cr3, rdi")


@pytest.mark.pvops_backends("lguest")
def test_lguest_patches_its_four_templates(patch: PatchCaller) -> None:
    assert patch("irq_disable").assembles_to("mov dword ptr [{lguest_data}], 0")
    assert patch("write_cr3").form == "call"
    assert patch("irq_disable", 7).form == "left"


@pytest.mark.pvops_backends("xen")
@pytest.mark.pvops_layouts("2.6.24-pae")
def test_xen_leaves_what_does_not_fit(patch: PatchCaller) -> None:
    assert patch("irq_disable").assembles_to("mov byte ptr [{xen_vcpu_info+1}], 1")
    assert patch("save_fl").form == "left"
    assert patch("save_fl").fits()
