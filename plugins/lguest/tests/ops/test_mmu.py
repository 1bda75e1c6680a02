"""Page tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugins.lguest.tests.rig import BASE

if TYPE_CHECKING:
    from plugins.lguest.tests.ops_rig import OpsHost

from plugins.lguest.tests.ops_fixtures import SCRATCH, told


def test_page_tables(guest: OpsHost) -> None:
    ops, cpu, host = guest.ops, guest.vcpu, guest.host
    assert told(guest, lambda: ops.set_pte(cpu, BASE + SCRATCH, 0x1063)) == []
    ops.write_cr3(cpu, host.gpgdir)
    assert told(guest, lambda: ops.set_pte(cpu, BASE + SCRATCH, 0x2063)) == [("FLUSH_TLB", 1, 0, 0)]
    assert host.get(SCRATCH) == 0x2063
    host.set(SCRATCH + 0x104, BASE + 0x8000)
    calls = told(guest, lambda: ops.set_pte_at(cpu, BASE + SCRATCH + 0x100, 0x08048000, BASE + SCRATCH + 4, 0x3067))
    assert calls == [("SET_PTE", 0x8000, 0x08048000, 0x3067)]
    assert host.get(SCRATCH + 4) == 0x3067
    calls = told(guest, lambda: ops.set_pmd(cpu, BASE + SCRATCH + 0x80, 0xA067))
    assert calls == [("SET_PMD", SCRATCH, 0x20, 0)]
    assert host.get(SCRATCH + 0x80) == 0xA067
    assert told(guest, lambda: ops.flush_tlb_user(cpu)) == [("FLUSH_TLB", 0, 0, 0)]
    assert told(guest, lambda: ops.flush_tlb_kernel(cpu)) == [("FLUSH_TLB", 1, 0, 0)]
    assert told(guest, lambda: ops.flush_tlb_single(cpu, 0x1000)) == [("SET_PTE", host.gpgdir, 0x1000, 0)]
