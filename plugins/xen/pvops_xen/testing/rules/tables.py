"""Page tables: what may be mapped, pinned, loaded, and by which call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import DOMID_IO, DOMID_XEN, PAGE_SHIFT, Hypercall, MmuExt, MmuUpdate
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.testing.guests import BASE
from pvops_xen.testing.rules.case import Collection, Errno, Gives

if TYPE_CHECKING:
    from pvops_xen.testing.guests import SmallGuest

_RW: Final = pte.P | pte.RW | pte.A
_RO: Final = pte.P | pte.A
_TABLE: Final = pte.P | pte.RW | pte.USER | pte.A | pte.D
_L1 = "get_page_from_l1e"
case = CASES = Collection()


def _map(g: SmallGuest, mfn: int, flags: int) -> int:
    return g.update_va_mapping(g.va(0), mfn << PAGE_SHIFT | flags)


def _slot(g: SmallGuest, level: int) -> int:
    """Machine address of the entry of that level that maps the kernel."""
    return (g.table(level) << PAGE_SHIFT) + (BASE[g.bits] >> (3 + 9 * level) & 511) * 8


def _free_slot(g: SmallGuest, level: int) -> int:
    """Machine address of an entry of that level that is the guest's and not present."""
    table = g.hv.validator.table(g.table(level))
    slots = range(4) if level == 3 and g.bits == 32 else range(512)
    free = next(
        slot for slot in slots if not table[slot] & pte.P and g.hv.validator.is_guest_slot(g.table(level), level, slot)
    )
    return (g.table(level) << PAGE_SHIFT) + free * 8


def _top(g: SmallGuest) -> int:
    return 4 if g.bits == 64 else 3


# --- mapping ---------------------------------------------------------------------------------------------------------

for _level in (1, 2, 3, 4):
    case(f"map an L{_level} table writable", _L1, Errno("EBUSY"), *((64,) if _level == 4 else (64, 32)))(
        lambda g, level=_level: _map(g, g.table(level), _RW)  # type: ignore[misc]
    )


case("map an L1 table writable by mmu_update", _L1, Errno("EBUSY"))(
    lambda g: g.mmu_update((g.l1e(0), g.table(1) << PAGE_SHIFT | _RW))
)
case("map a frame of Xen's", _L1, Errno("EBUSY"))(lambda g: _map(g, g.hv.m2p >> PAGE_SHIFT, _RO))
case("map a frame that nobody has", _L1, Errno("EBUSY"))(lambda g: _map(g, 0, _RO))
case("map a frame beyond memory", f"{_L1}: iomem_access_permitted", Errno("EPERM"))(
    lambda g: _map(g, len(g.hv.frames) + 5, _RW)
)
case("map the frame of all ones", f"{_L1}: INVALID_MFN", Errno("EINVAL"))(
    lambda g: _map(g, pte.ADDRESS >> PAGE_SHIFT, _RW)
)


for _bit, _what in ((pte.PCD, "uncached"), (pte.PWT, "write-through"), (pte.PSE, "with PAT")):
    case(f"map a page {_what}", "L1_DISALLOW_MASK", Errno("EINVAL"))(
        lambda g, bit=_bit: _map(g, g.mfn(0), _RW | bit)  # type: ignore[misc]
    )


case("map a page with the flag of grants", "L1_DISALLOW_MASK", Errno("EINVAL"))(
    lambda g: _map(g, g.mfn(0), _RW | pte.GNTTAB)
)
case("map at an address of Xen's", "map_guest_l1e", Errno("EINVAL"))(
    lambda g: g.update_va_mapping(g.hv.abi.m2p_start, g.mfn(0) << PAGE_SHIFT | _RW)
)
case("map at an address that has no table", "map_guest_l1e", Errno("EINVAL"))(
    lambda g: g.update_va_mapping(0x4000_0000, g.mfn(0) << PAGE_SHIFT | _RW)
)
case("map at an address that is not canonical", "map_guest_l1e", Errno("EINVAL"), 64)(
    lambda g: g.update_va_mapping(1 << 47, g.mfn(0) << PAGE_SHIFT | _RW)
)


@case("map in an unknown domain's space", "get_pg_owner", Errno("ESRCH"))
def _(g: SmallGuest) -> int:
    entry = g.entry(0)
    value = (entry,) if g.bits == 64 else (entry & 0xFFFF_FFFF, entry >> 32)
    return g.call(Hypercall.UPDATE_VA_MAPPING_OTHERDOMAIN, g.va(0), *value, 0, 77)


# --- entries ---------------------------------------------------------------------------------------------------------


case("a large page in an L2", "L2_DISALLOW_MASK", Errno("EINVAL"))(
    lambda g: g.mmu_update((_free_slot(g, 2), g.mfn(0) << PAGE_SHIFT | _TABLE | pte.PSE))
)
case("a large page in an L3", "l3_disallow_mask", Errno("EINVAL"))(
    lambda g: g.mmu_update((_free_slot(g, 3), g.mfn(0) << PAGE_SHIFT | pte.P | pte.PSE))
)
case("no-execute in a PAE L3", "COMPAT_L3_DISALLOW_MASK", Errno("EINVAL"), 32)(
    lambda g: g.mmu_update((_free_slot(g, 3), g.mfn(0) << PAGE_SHIFT | pte.P | pte.NX))
)
case("a page that is mapped writable as an L1 table", "get_page_from_l2e", Errno("EINVAL"))(
    lambda g: g.mmu_update((_free_slot(g, 2), g.mfn(0) << PAGE_SHIFT | _TABLE))
)
case("an L3 table as an L1 table", "get_page_from_l2e", Errno("EINVAL"))(
    lambda g: g.mmu_update((_free_slot(g, 2), g.table(3) << PAGE_SHIFT | _TABLE))
)
case("a frame of Xen's as an L1 table", "get_page_from_l2e", Errno("EINVAL"))(
    lambda g: g.mmu_update((_free_slot(g, 2), g.hv.m2p | _TABLE))
)
case("a table beyond memory", "get_page_from_l3e", Errno("EINVAL"))(
    lambda g: g.mmu_update((_free_slot(g, 3), (len(g.hv.frames) + 1) << PAGE_SHIFT | pte.P))
)
case("a writable linear L4 entry", "get_l4_linear_pagetable", Errno("EINVAL"), 64)(
    lambda g: g.mmu_update((_free_slot(g, 4), g.table(4) << PAGE_SHIFT | _TABLE))
)
case("a writable linear L2 entry", "get_l2_linear_pagetable", Errno("EINVAL"))(
    lambda g: g.mmu_update((_free_slot(g, 2), g.table(2) << PAGE_SHIFT | _TABLE))
)


for _number in (256, 260, 271):
    case(f"an entry of Xen's in an L4 (slot {_number})", "mod_l4_entry: is_guest_l4_slot", Errno("EINVAL"), 64)(
        lambda g, slot=_number: g.mmu_update(((g.table(4) << PAGE_SHIFT) + slot * 8, 0))  # type: ignore[misc]
    )


case("an entry of Xen's in the last PAE L2", "mod_l2_entry: is_guest_l2_slot", Errno("EPERM"), 32)(
    lambda g: g.mmu_update(((g.table(2) << PAGE_SHIFT) + 428 * 8, 0))
)
case("the last entry of a PAE L3", "mod_l3_entry", Errno("EINVAL"), 32)(lambda g: g.mmu_update((_slot(g, 3), 0)))
case("a fifth entry of a PAE L3", "mod_l3_entry", Errno("EINVAL"), 32)(
    lambda g: g.mmu_update(((g.table(3) << PAGE_SHIFT) + 32, g.u64(_slot(g, 3))))
)
case("an update of a frame of Xen's", "do_mmu_update", Errno("EINVAL"))(lambda g: g.mmu_update((g.hv.m2p, 0)))
case("an update beyond memory", "do_mmu_update", Errno("EINVAL"))(
    lambda g: g.mmu_update((len(g.hv.frames) << PAGE_SHIFT, 0))
)
case("an update with an unknown command", "do_mmu_update", Errno("ENOSYS"))(
    lambda g: g.mmu_update((g.l1e(0) | 5, g.entry(0)))
)


@case("a second update after one that fails", "do_mmu_update", Gives("-EINVAL, and the second is not made"))
def _(g: SmallGuest) -> int:
    before = g.entry(0)
    return g.mmu_update((g.hv.m2p, 0), (g.l1e(0), 0)) == -22 and g.entry(0) == before


case("an update of an unknown domain's frame", "get_pg_owner", Errno("ESRCH"))(
    lambda g: g.mmu_update((g.l1e(0), g.entry(0)), owner=77)
)
case("an update of dom0's frame", "xsm_mmu_update", Errno("EPERM"))(
    lambda g: g.mmu_update((g.l1e(0), g.entry(0)), owner=0)
)
case("an update of Xen's frame by its number", "xsm_mmu_update", Errno("EPERM"))(
    lambda g: g.mmu_update((g.l1e(0), g.entry(0)), owner=DOMID_XEN)
)
case("an update with the own number for a foreign domain", "get_pg_owner", Errno("ESRCH"))(
    lambda g: g.mmu_update((g.l1e(0), g.entry(0)), owner=g.hv.domain.domid)
)
case("an update of a page table of dom0's", "do_mmu_update: pt_dom", Errno("EPERM"))(
    lambda g: g.mmu_update((g.l1e(0), g.entry(0)), owner=1 << 16 | 0x7FF0)
)
case("the machine-to-physical entry of a frame of Xen's", "do_mmu_update: MMU_MACHPHYS_UPDATE", Errno("EINVAL"))(
    lambda g: g.mmu_update((g.hv.m2p | MmuUpdate.MACHPHYS_UPDATE, 5))
)
case("an update that no request is, of dom0's frame", "do_mmu_update", Errno("ENOSYS"))(
    lambda g: g.mmu_update((g.l1e(0) | 5, g.entry(0)), owner=0)
)
case("no update of an unknown domain's frame", "get_pg_owner", Errno("ESRCH"))(lambda g: g.mmu_update(owner=77))
case("no update of dom0's frame", "do_mmu_update", Gives("0", 0))(lambda g: g.mmu_update(owner=0))
case("an update of an L2 table with I/O frames", "do_mmu_update: pg_owner", Errno("EINVAL"))(
    lambda g: g.mmu_update((g.table(2) << 12, 0), owner=DOMID_IO)
)


@case("an update by address with I/O frames", "xsm_update_va_mapping", Errno("EPERM"))
def _(g: SmallGuest) -> int:
    value = (g.entry(0),) if g.bits == 64 else (g.entry(0) & 0xFFFF_FFFF, g.entry(0) >> 32)
    return g.call(Hypercall.UPDATE_VA_MAPPING_OTHERDOMAIN, g.va(0), *value, 0, DOMID_IO)


@case("the rest of a preempted call, of nothing", "do_mmu_update, do_mmuext_op", Gives("what is given for a domain"))
def _(g: SmallGuest) -> bool:
    calls = (Hypercall.MMU_UPDATE, Hypercall.MMUEXT_OP)
    return all(g.call(call, 0, 1 << 31, 0, -5 & 0xFFFF_FFFF) == -5 for call in calls)


# --- pins and roots --------------------------------------------------------------------------------------------------


def _pin(g: SmallGuest, level: int, mfn: int) -> int:
    return g.mmuext((MmuExt.PIN_L1_TABLE + level - 1, mfn, 0))


def _prepared(g: SmallGuest, *entries: int) -> int:
    """A page with these entries that is not writable any more."""
    g.put(1, b"".join(entry.to_bytes(8, "little") for entry in entries).ljust(4096, b"\0"))
    g.protect(1)
    return g.mfn(1)


case("pin a page that is mapped writable", "get_page_type_preemptible", Errno("EINVAL"))(lambda g: _pin(g, 1, g.mfn(0)))
case("pin an L1 table as an L2 table", "get_page_type_preemptible", Errno("EINVAL"))(lambda g: _pin(g, 2, g.table(1)))
case("pin a table twice", "MMUEXT_PIN: already pinned", Errno("EINVAL"))(lambda g: _pin(g, _top(g), g.table(_top(g))))
case("pin a frame of Xen's", "MMUEXT_PIN: get_page_from_gfn", Errno("EINVAL"))(
    lambda g: _pin(g, 1, g.hv.m2p >> PAGE_SHIFT)
)
case("pin a frame beyond memory", "MMUEXT_PIN: get_page_from_gfn", Errno("EINVAL"))(
    lambda g: _pin(g, 1, 1 << (31 if g.bits == 32 else 40))
)
case("pin shared_info as a table", "share_xen_page_with_guest", Errno("EINVAL"))(
    lambda g: _pin(g, 1, g.hv.domain.shared_info >> PAGE_SHIFT)
)
case("pin an L1 table that maps a frame of Xen's", "alloc_l1_table", Errno("EBUSY"))(
    lambda g: _pin(g, 1, _prepared(g, g.entry(0), g.hv.m2p | _RO))
)
case("pin an L1 table that maps itself writable", "alloc_l1_table", Errno("EBUSY"))(
    lambda g: _pin(g, 1, _prepared(g, g.mfn(1) << PAGE_SHIFT | _RW))
)
case("pin an L1 table that maps beyond memory", "alloc_l1_table", Errno("EPERM"))(
    lambda g: _pin(g, 1, _prepared(g, len(g.hv.frames) << PAGE_SHIFT | _RW))
)
case("pin an L1 table with reserved cache flags", "alloc_l1_table", Errno("EINVAL"))(
    lambda g: _pin(g, 1, _prepared(g, g.mfn(0) << PAGE_SHIFT | _RW | pte.PCD))
)
case("pin an L2 table with a large page", "alloc_l2_table", Errno("EINVAL"))(
    lambda g: _pin(g, 2, _prepared(g, g.mfn(0) << PAGE_SHIFT | _TABLE | pte.PSE))
)
case("pin an L2 table that names itself writable", "alloc_l2_table", Errno("EINVAL"))(
    lambda g: _pin(g, 2, _prepared(g, g.mfn(1) << PAGE_SHIFT | _TABLE))
)


@case("pin an L2 table over an L1 table that maps Xen's", "alloc_l2_table", Errno("EBUSY"))
def _(g: SmallGuest) -> int:
    g.put(2, (g.hv.m2p | _RO).to_bytes(8, "little"))
    g.protect(2)
    return _pin(g, 2, _prepared(g, g.mfn(2) << PAGE_SHIFT | _TABLE))


case("pin a PAE root without its last entry", "pae_xen_mappings_check", Errno("EINVAL"), 32)(
    lambda g: _pin(g, 3, _prepared(g))
)
case("pin a PAE root with another's last table", "pae_xen_mappings_check", Errno("EINVAL"), 32)(
    lambda g: _pin(g, 3, _prepared(g, 0, 0, 0, g.u64(_slot(g, 3))))
)
case("unpin a table that is not pinned", "MMUEXT_UNPIN_TABLE", Errno("EINVAL"))(
    lambda g: g.mmuext((MmuExt.UNPIN_TABLE, g.table(1), 0))
)
case("unpin a frame of Xen's", "MMUEXT_UNPIN_TABLE", Errno("EINVAL"))(
    lambda g: g.mmuext((MmuExt.UNPIN_TABLE, g.hv.m2p >> PAGE_SHIFT, 0))
)
case("run on an L1 table", "new_guest_cr3", Errno("EINVAL"))(lambda g: g.mmuext((MmuExt.NEW_BASEPTR, g.table(1), 0)))
case("run on a page that is mapped writable", "new_guest_cr3", Errno("EINVAL"))(
    lambda g: g.mmuext((MmuExt.NEW_BASEPTR, g.mfn(0), 0))
)
case("run on a frame beyond memory", "new_guest_cr3", Errno("EINVAL"))(
    lambda g: g.mmuext((MmuExt.NEW_BASEPTR, len(g.hv.frames), 0))
)
case("run processes on a root of their own with PAE", "compat_mmuext_op", Errno("EINVAL"), 32)(
    lambda g: g.mmuext((MmuExt.NEW_USER_BASEPTR, 0, 0))
)
case("run processes on an L2 table", "MMUEXT_NEW_USER_BASEPTR", Errno("EINVAL"), 64)(
    lambda g: g.mmuext((MmuExt.NEW_USER_BASEPTR, g.table(2), 0))
)


@case(
    "give away a page table's frame while it is in use",
    "guest_remove_page",
    Gives("taken; the frame stays a table until its references go", 1),
)
def _(g: SmallGuest) -> int:
    reservation = g.words(g.put("data", g.words(g.table(1)), 256), 1) + bytes(8) + (0x7FF0).to_bytes(4, "little")
    return g.call(Hypercall.MEMORY_OP, 1, g.put("data", reservation))


case("clear a page table by MMUEXT_CLEAR_PAGE", "get_page_type: PGT_writable_page", Errno("EINVAL"))(
    lambda g: g.mmuext((MmuExt.CLEAR_PAGE, g.table(1), 0))
)
case("copy over a page table by MMUEXT_COPY_PAGE", "get_page_type: PGT_writable_page", Errno("EINVAL"))(
    lambda g: g.mmuext((MmuExt.COPY_PAGE, g.table(1), g.mfn(0)))
)
case("copy a frame of Xen's by MMUEXT_COPY_PAGE", "get_page_from_gfn", Errno("EINVAL"))(
    lambda g: g.mmuext((MmuExt.COPY_PAGE, g.mfn(0), g.hv.m2p >> PAGE_SHIFT))
)
case("flush the caches", "cache_flush_permitted", Errno("EACCES"))(lambda g: g.mmuext((MmuExt.FLUSH_CACHE, 0, 0)))
case("an unknown extended operation", "do_mmuext_op", Errno("ENOSYS"))(lambda g: g.mmuext((14, 0, 0)))
case("an extended operation on dom0's frames", "xsm_mmuext_op", Errno("EPERM"))(
    lambda g: g.mmuext((MmuExt.PIN_L1_TABLE, g.mfn(0), 0), owner=0)
)
