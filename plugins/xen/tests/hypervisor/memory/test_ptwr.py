"""Writable page tables: an instruction does to an L1 table what it does to any page, as Xen adjusts entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import PAGE_SHIFT, Hypercall, MmuExt, VmAssist
from pvops_xen.hypervisor.memory import audit
from pvops_xen.hypervisor.memory import entries as pte

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

PF = 14
STORES = (
    "mov [{d}], {s}", "mov dword ptr [{d}], 0x61", "mov byte ptr [{d}], 0x21", "mov [{d} + 1], al",
    "mov word ptr [{d}], ds",
    "xchg [{d}], {s}", "lock cmpxchg [{d}], {s}", "cmpxchg [{d}], cl", "lock cmpxchg8b [{d}]", "lock xadd [{d}], {s}",
    "and dword ptr [{d}], 0xffffffbf", "lock or dword ptr [{d}], 0x40", "xor byte ptr [{d}], 0x42",
    "add dword ptr [{d}], 0x40", "sub byte ptr [{d}], 2", "adc dword ptr [{d}], 0", "sbb word ptr [{d}], 3",
    "inc byte ptr [{d}]", "dec dword ptr [{d}]", "not word ptr [{d}]", "neg byte ptr [{d}]",
    "shl byte ptr [{d}], 1", "rol word ptr [{d}], cl", "shrd [{d}], ecx, 3",
    "lock btr dword ptr [{d}], 1", "lock bts dword ptr [{d}], 6", "btc dword ptr [{d}], ecx",
    "bts dword ptr [{d} - 4], ebx",
    "sete [{d}]", "pop [{d}]", "movnti [{d}], {s}", "stosd", "stosb", "movsb", "rep stosd",
    "movd [{d}], xmm0", "movq [{d}], xmm0", "movlps [{d}], xmm0", "movhps [{d}], xmm0", "movss [{d}], xmm0",
    "fstp qword ptr [{d}]", "fnstcw [{d}]", "fistp dword ptr [{d}]",
)  # fmt: skip
"""What writes memory, naturally aligned and at most an entry at once. ``bts`` reaches its bit from another word."""
REFUSED = ("movups [{d}], xmm0", "mov [{d} + 3], {s}", "fnsave [{d}]", "fxsave [{d}]", "lock cmpxchg8b [{d} + 4]")


def run(g: SmallGuest, code: str, page: int) -> GuestOutcome:
    """Execute a store to the first entry of a page, with a page and a number in the registers that stores use."""
    g.put(4, (g.mfn(3) << PAGE_SHIFT | 0x25).to_bytes(8, "little") * 2)
    d, s, letters = ("rdi", "rsi", "r") if g.bits == 64 else ("edi", "esi", "e")
    entry = g.u64(g.mfn(page) << PAGE_SHIFT)
    registers = {d: g.va(page), s: g.va(4) if "movs" in code else g.mfn(3) << PAGE_SHIFT | 0x21}
    registers |= {
        f"{letters}ax": 0 if "stos" in code else entry & g.hv.abi.mask,
        f"{letters}bx": 0x25,
        f"{letters}cx": 6,
    }
    prepare = f"movups xmm0, [{g.va(4):#x}]\n fninit\n fld1\n cmp {d}, {d}\n "
    return g.execute(prepare + code.format(d=d, s=s), **registers)


def table(g: SmallGuest, entry: int) -> None:
    """Make page 1 an L1 table that begins with an entry; what Xen makes of the entry goes to page 2, which is none."""
    g.call(Hypercall.VM_ASSIST, 0, VmAssist.WRITABLE_PAGETABLES)
    g.put(1, entry.to_bytes(8, "little"))
    g.protect(1)
    assert g.mmuext((MmuExt.PIN_L1_TABLE, g.mfn(1), 0)) == 0
    g.put(2, g.u64(g.mfn(1) << PAGE_SHIFT).to_bytes(8, "little"))


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("code", STORES)
def test_a_store_is_what_it_is_elsewhere(guests: dict[int, SmallGuest], bits: int, code: str) -> None:
    g = guests[bits]
    g.restart()
    table(g, g.mfn(0) << PAGE_SHIFT | 0x63)
    pages = [run(g, code, page) for page in (2, 1)]
    assert pages[0].kind == "done"
    plain, there = (g.hv.memory.read(g.mfn(page) << PAGE_SHIFT, 48) for page in (2, 1))
    for at in range(0, 48, 8):
        wanted = int.from_bytes(plain[at : at + 8], "little")
        if wanted & pte.P and (wanted & pte.disallowed(1, bits) or not g.hv.frames.is_guests(pte.frame_of(wanted))):
            assert (pages[1].vector, pages[1].error) == (PF, 3)
        else:
            assert int.from_bytes(there[at : at + 8], "little") == pte.adjust(wanted, 1, bits)
    if pages[1].kind == "done":
        pointers = {"rdi", "edi", "rsp", "esp"}
        assert {name: value for name, value in pages[1].registers.items() if name not in pointers} == {
            name: value for name, value in pages[0].registers.items() if name not in pointers
        }
    assert audit.audit(g.hv) == []


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("code", REFUSED)
def test_a_store_that_xen_does_not_emulate(guests: dict[int, SmallGuest], bits: int, code: str) -> None:
    g = guests[bits]
    g.restart()
    table(g, g.mfn(0) << PAGE_SHIFT | 0x63)
    before = g.hv.memory.read(g.mfn(1) << PAGE_SHIFT, 4096)
    got = run(g, code, 1)
    assert (got.vector, got.error) == (PF, 3)
    assert g.hv.memory.read(g.mfn(1) << PAGE_SHIFT, 4096) == before


@pytest.mark.parametrize("bits", [64, 32])
def test_a_rehearsed_store_that_is_refused_leaves_nothing(guests: dict[int, SmallGuest], bits: int) -> None:
    g = guests[bits]
    g.restart()
    table(g, g.table(1) << PAGE_SHIFT | 0x61)
    pointer = "rdi" if bits == 64 else "edi"
    got = g.execute(f"inc byte ptr [{pointer}]\n nop", **{pointer: g.va(1)})  # 0x61 becomes 0x62: not present
    assert got.kind == "done"
    got = g.execute(f"inc byte ptr [{pointer}]\n nop", **{pointer: g.va(1)})  # 0x63: a writable mapping of a table
    assert (got.vector, got.error, got.address, got.cr2) == (PF, 3, g.va("probe"), g.va(1))
    assert g.u64(g.mfn(1) << PAGE_SHIFT) & 0xFF == 0x62 | (4 if bits == 64 else 0)
    assert audit.audit(g.hv) == []
