"""Plain stores: to page tables that are mapped read-only, to descriptor tables, to Xen's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import PAGE_SHIFT, Hypercall, MmuExt, VmAssist
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.testing.rules.case import Collection, Trap

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

PF, GP = 14, 13
_PROTECTED: Final = 3  # present, a write, by the kernel
case = CASES = Collection()


def _table(g: SmallGuest) -> int:
    """A pinned L1 table with an entry for page 0, mapped read-only, with writable page tables on; its address."""
    g.call(Hypercall.VM_ASSIST, 0, VmAssist.WRITABLE_PAGETABLES)
    address = g.put(1, g.entry(0).to_bytes(8, "little"))
    g.protect(1)
    g.mmuext((MmuExt.PIN_L1_TABLE, g.mfn(1), 0))
    return address


def _pointer(g: SmallGuest) -> str:
    return "rdi" if g.bits == 64 else "edi"


def _store(g: SmallGuest, code: str, address: int, value: int = 0) -> GuestOutcome:
    names = ("rdi", "rsi") if g.bits == 64 else ("edi", "esi")
    return g.execute(code, **dict(zip(names, (address, value & g.hv.abi.mask), strict=True)))


def _source(g: SmallGuest) -> str:
    return "rsi" if g.bits == 64 else "esi"


@case("a store to an L1 table without writable page tables", "fixup_page_fault: VM_ASSIST", Trap(PF, _PROTECTED))
def _(g: SmallGuest) -> GuestOutcome:
    address = _table(g)
    g.call(Hypercall.VM_ASSIST, 1, VmAssist.WRITABLE_PAGETABLES)
    return _store(g, f"mov [{_pointer(g)}], {_source(g)}", address)


case("a store that maps a frame of Xen's", "ptwr_emulated_update: get_page_from_l1e", Trap(PF, _PROTECTED))(
    lambda g: _store(g, f"mov [{_pointer(g)}], {_source(g)}", _table(g), g.hv.m2p | pte.P)
)
case("a store that maps the table itself writable", "ptwr_emulated_update: get_page_from_l1e", Trap(PF, _PROTECTED))(
    lambda g: _store(g, f"xchg [{_pointer(g)}], {_source(g)}", _table(g), g.mfn(1) << PAGE_SHIFT | pte.P | pte.RW)
)


@case("an or that makes an entry of a table's frame writable", "ptwr_emulated_update", Trap(PF, _PROTECTED))
def _(g: SmallGuest) -> GuestOutcome:
    address = _table(g)
    g.mmu_update((g.mfn(1) << PAGE_SHIFT, g.table(1) << PAGE_SHIFT | pte.P))
    return _store(g, f"lock or dword ptr [{_pointer(g)}], 2", address)


case("a store across two entries", "ptwr_emulated_update: aligned stores", Trap(PF, _PROTECTED))(
    lambda g: _store(g, f"mov [{_pointer(g)}], {_source(g)}", _table(g) + 6)
)
case("a store of 16 bytes", "ptwr_emulated_write: size", Trap(PF, _PROTECTED))(
    lambda g: _store(g, f"movups [{_pointer(g)}], xmm0", _table(g))
)
case("cmpxchg16b on two entries", "ptwr_emulated_cmpxchg: size", Trap(PF, _PROTECTED), 64)(
    lambda g: _store(g, "lock cmpxchg16b [rdi]", _table(g))
)


for _level in (2, 3, 4):
    case(
        f"a store to an L{_level} table",
        "ptwr_do_page_fault: PGT_l1_page_table",
        Trap(PF, _PROTECTED),
        *((64,) if _level == 4 else (64, 32)),
    )(
        lambda g, level=_level: _to_upper(g, level)  # type: ignore[misc]
    )


def _to_upper(g: SmallGuest, level: int) -> GuestOutcome:
    _table(g)
    g.update_va_mapping(g.va(0), g.table(level) << PAGE_SHIFT | pte.P)
    return _store(g, f"mov [{_pointer(g)}], {_source(g)}", g.va(0))


@case("a store to a page table by a process", "fixup_page_fault: guest_kernel_mode", Trap(PF, 7))
def _(g: SmallGuest) -> GuestOutcome:
    address = _table(g)
    g.update_va_mapping(address, g.mfn(1) << PAGE_SHIFT | pte.P | pte.USER)
    name = "rdi" if g.bits == 64 else "edi"
    return g.execute_as_user(f"mov dword ptr [{name}], 0", **{name: address})


case("a store to the machine-to-physical table", "read-only mapping", Trap(PF, _PROTECTED))(
    lambda g: _store(g, f"mov [{_pointer(g)}], {_source(g)}", g.hv.abi.m2p_start)
)


@case("a store to a descriptor table", "PGT_seg_desc_page", Trap(PF, _PROTECTED))
def _(g: SmallGuest) -> GuestOutcome:
    g.protect(0)
    g.set_gdt(g.mfn(0))
    return _store(g, f"mov [{_pointer(g)}], {_source(g)}", g.va(0))


case("a read of Xen's own text", "not mapped for guests", Trap(PF, 0), 64)(
    lambda g: g.execute("mov rax, [rdi]", rdi=0xFFFF_82D0_4000_0000)
)
