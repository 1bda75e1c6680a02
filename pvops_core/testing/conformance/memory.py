"""Laws of the ops that build page tables and keep the TLB true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.testing.conformance.fixture import FRAME, KERNEL, TABLE
from pvops_core.testing.conformance.laws import law
from pvops_core.x86 import PAGE, PRESENT, WRITABLE

if TYPE_CHECKING:
    from pvops_core.testing.conformance.fixture import Fixture

LEVELS: Final = ("pte", "pmd", "pud", "p4d", "pgd")
USER: Final = {32: 0x0804_8000, 64: 0x40_0000}
SEEN: Final = FRAME | WRITABLE | PRESENT
"""What a hypervisor may not change in an entry; it may add bits of its own, as Xen's USER in 64-bit guests."""
FIXMAP: Final = 3


@law(*(f"{level}_val" for level in LEVELS), *(f"make_{level}" for level in LEVELS))
def entries_come_back_as_they_were_meant(fixture: Fixture, op: str) -> None:
    """What the kernel sees of an entry is what it had made, and making one changes nothing.

    Source: ``pte_val()`` and ``__pte()`` of asm/paravirt.h, and those of the other levels.
    """
    level = op.removeprefix("make_").removesuffix("_val")
    page = fixture.call.physical(fixture.page())
    # 0x25 is a user's page, read-only and accessed; the last is not present, and Xen leaves such entries alone.
    for meant in (page | 1, page | KERNEL, page | TABLE, page | 0x25, 0, 0x80 << 12 & ~1):
        made = fixture.call(f"make_{level}", meant)
        seen = fixture.call(f"{level}_val", made.result)
        assert seen.result == meant, f"{level}_val gives {seen.result:#x} of what make_{level} made of {meant:#x}"
        assert not made.changes, f"make_{level} changed {made.changes}"
        assert not seen.changes, f"{level}_val changed {seen.changes}"


@law("set_pte", "set_pte_at", "set_pte_atomic", "set_pte_present")
def a_mapping_is_in_force_after_the_flush(fixture: Fixture, op: str) -> None:
    """Map one page, look through the mapping, map another in its place.

    Source: ``set_pte()`` of asm/paravirt.h; Intel SDM volume 3, 4.10.4.1.
    """
    place = fixture.pte(fixture.area)
    for word in (0x1111_0001, 0x2222_0002):
        entry = fixture.made("pte", fixture.page(word))
        wide = (fixture.init_mm, fixture.area) if op in {"set_pte_at", "set_pte_present"} else ()
        done = fixture.call(op, *wide, place, entry)
        assert not done.changes.registers, f"{done.what} changed {done.changes}"
        fixture.flush()
        seen, stored = fixture.call.load(fixture.area), fixture.stored(place)
        assert seen == word, f"a page was mapped by {op} and flushed for: {seen:#x} is read there, {word:#x} was in it"
        assert stored & SEEN == entry & SEEN, f"{op} was given the entry {entry:#x}; {stored:#x} is in the table"


@law("pte_clear")
def a_cleared_entry_maps_nothing(fixture: Fixture, op: str) -> None:
    """It reads as 0.

    Source: ``native_pte_clear()`` of asm/pgtable-2level.h, pgtable-3level.h and pgtable_64.h.
    """
    fixture.map(fixture.area, fixture.page())
    fixture.call(op, fixture.init_mm, fixture.area, fixture.pte(fixture.area))
    left = fixture.read("pte", fixture.stored(fixture.pte(fixture.area)))
    assert left == 0, f"an entry was cleared by {op}; {left:#x} is in the table"


@law("set_pmd", "set_pud", "set_p4d", "set_pgd", "pmd_clear")
def an_entry_of_a_table_not_in_use_is_what_was_set(fixture: Fixture, op: str) -> None:
    """In a page that no address space has.

    Source: ``native_set_pmd()`` and its like of the other levels.
    """
    level = op.removeprefix("set_").removesuffix("_clear")
    # PAE's entries of the third level have no RW and US: they are reserved (SDM volume 3, table 4-8).
    table, entry = (
        fixture.page(),
        fixture.made(level, fixture.page(), 1 if level == "pud" and fixture.bits == 32 else TABLE),
    )
    if op.endswith("_clear"):
        fixture.call("set_pmd", table, entry)
        fixture.call(op, table)
        left = fixture.read(level, fixture.stored(table))
        assert left == 0, f"an entry was cleared by {op}; {left:#x} is in the table"
    else:
        done = fixture.call(op, table, entry)
        stored = fixture.stored(table)
        assert stored == entry, f"{op} was given the entry {entry:#x}; {stored:#x} is in the table"
        assert not done.changes.registers, f"{done.what} changed {done.changes}"


@law("pte_update", "pte_update_defer")
def telling_of_an_update_changes_nothing_seen(fixture: Fixture, op: str) -> None:
    """The entry itself stays.

    Source: ``pte_update()`` of asm/pgtable.h, a notification for shadow page tables.
    """
    fixture.map(fixture.area, fixture.page(word=0x77))
    place = fixture.pte(fixture.area)
    before = fixture.stored(place)
    fixture.call(op, fixture.init_mm, fixture.area, place)
    fixture.flush()
    assert fixture.stored(place) == before, f"{op} only tells of an update, and the entry became another"
    assert fixture.call.load(fixture.area) == 0x77, f"another page is seen after {op}, which only tells of an update"


@law("ptep_modify_prot_start", "ptep_modify_prot_commit")
def a_protection_changes_between_start_and_commit(fixture: Fixture, _op: str) -> None:
    """The page stays, read-only.

    Source: ``ptep_modify_prot_start()`` and ``ptep_modify_prot_commit()`` of asm-generic/pgtable.h.
    """
    vma = fixture.page()
    for number, word in enumerate((fixture.init_mm, fixture.area, fixture.area + PAGE)):
        fixture.cpu.set_word(vma + number * fixture.word, word)
    fixture.map(fixture.area, fixture.page(word=0x99))
    place = fixture.pte(fixture.area)
    old = fixture.call("ptep_modify_prot_start", vma, fixture.area, place).result
    new = fixture.call("make_pte", fixture.read("pte", old) & ~WRITABLE).result
    fixture.call("ptep_modify_prot_commit", vma, fixture.area, place, new)
    fixture.flush()
    assert not fixture.read("pte", fixture.stored(place)) & WRITABLE, (
        "a page was to be read-only after the commit, and is not"
    )
    assert fixture.call.load(fixture.area) == 0x99, "another page is seen after its protection was changed"


FLUSHES: Final = (
    "flush_tlb_user",
    "flush_tlb_kernel",
    "flush_tlb_single",
    "flush_tlb_one_user",
    "write_cr3",
)


@law(*FLUSHES)
def no_stale_translation_is_left(fixture: Fixture, op: str) -> None:
    """An address that was used, and whose entry changed, is translated anew.

    Source: Intel SDM volume 3, 4.10.4.1: what invlpg and a write of CR3 invalidate.
    """
    fixture.map(fixture.area, fixture.page(word=0x11))
    fixture.flush()
    first = fixture.call.load(fixture.area)
    assert first == 0x11, f"{first:#x} is read of a page that was mapped and flushed for; 0x11 was in it"
    fixture.map(fixture.area, fixture.page(word=0x22))
    if op == "write_cr3":
        # The same root again: a write drops what is cached of it (SDM volume 3, 4.10.4.1).
        done = fixture.call(op, fixture.call("read_cr3").result)
    elif op in {"flush_tlb_single", "flush_tlb_one_user"}:
        done = fixture.call(op, fixture.area)
    else:
        done = fixture.call(op)
    seen = fixture.call.load(fixture.area)
    assert seen == 0x22, f"a stale translation was used after {op}: {seen:#x} read, 0x22 is there now"
    assert not done.changes.registers, f"{done.what} changed {done.changes}"


@law("mmu_lazy_mode_enter", "mmu_lazy_mode_leave", also=("mmu_lazy_mode_enter",))
def a_batch_is_in_force_when_it_ends(fixture: Fixture, _op: str) -> None:
    """Eight mappings in lazy mode.

    Source: ``arch_leave_lazy_mmu_mode()`` of asm-generic/pgtable.h.
    """
    pages = [fixture.page(word=0x100 + number) for number in range(8)]
    entries = [fixture.made("pte", page) for page in pages]
    place, size = fixture.pte(fixture.area), fixture.kept.session.guest.kind.entry_size
    fixture.call("mmu_lazy_mode_enter")
    for number, entry in enumerate(entries):
        fixture.call("set_pte", place + number * size, entry)
    fixture.call("mmu_lazy_mode_leave")
    fixture.flush()
    for number in range(8):
        seen = fixture.call.load(fixture.area + number * PAGE)
        assert seen == 0x100 + number, f"mapping {number} of a batch of 8 is not in force when the batch has ended"


@law("mmu_lazy_mode_flush")
def a_flushed_batch_is_in_force_at_once(fixture: Fixture, op: str) -> None:
    """While lazy mode goes on.

    Source: ``arch_flush_lazy_mmu_mode()`` of asm/paravirt.h.
    """
    entry = fixture.made("pte", fixture.page(word=0x44))
    place = fixture.pte(fixture.area)
    fixture.call("mmu_lazy_mode_enter")
    fixture.call("set_pte", place, entry)
    fixture.call(op)
    assert fixture.stored(place) & SEEN == entry & SEEN, f"an update of a batch is not in the table after {op}"
    fixture.call("mmu_lazy_mode_leave")


@law("set_lazy_mode")
def a_lazy_mode_ends_with_its_updates_done(fixture: Fixture, op: str) -> None:
    """PARAVIRT_LAZY_MMU is 1, NONE 0, FLUSH 3."""
    entry = fixture.made("pte", fixture.page(word=0x44))
    fixture.call(op, 1)
    fixture.call("set_pte", fixture.pte(fixture.area), entry)
    fixture.call(op, 3)
    fixture.call(op, 0)
    fixture.flush()
    assert fixture.call.load(fixture.area) == 0x44, "a mapping made in lazy mode is not in force when that has ended"


@law("alloc_pte", "alloc_pt", "release_pte", "release_pt")
def a_leaf_table_is_protected_while_it_is_one(fixture: Fixture, op: str) -> None:
    """Where page tables are read-only the page becomes so when it is announced; in the end it can be written.

    Source: ``xen_alloc_pte()`` and ``xen_release_pte()`` of arch/x86/xen.
    """
    page = fixture.page()
    alloc, release = (op, op.replace("alloc", "release")) if "alloc" in op else (op.replace("release", "alloc"), op)
    fixture.call(alloc, fixture.init_mm, fixture.pfn(page))
    if "mmu.readonly_tables" in fixture.has:
        assert not fixture.writable(page), f"a page can be written while it is a page table, after {alloc}"
    fixture.call(release, fixture.pfn(page))
    assert fixture.writable(page), f"a page cannot be written though it is no page table any more, after {release}"
    fixture.call.store(page, 0x1234)


@law("alloc_pmd", "alloc_pud", "alloc_p4d", "release_pmd", "release_pud", "release_p4d", "alloc_pd", "release_pd")
def an_upper_table_is_given_back(fixture: Fixture, op: str) -> None:
    """In the end the page can be written.

    Source: ``paravirt_alloc_pmd()`` and ``paravirt_release_pmd()`` of asm/paravirt.h, and those of other levels.
    """
    page = fixture.page()
    name = op.partition("_")[2]
    for step in ("alloc", "release"):
        wide = step == "alloc" and name != "pd"
        fixture.call(f"{step}_{name}", *((fixture.init_mm,) if wide else ()), fixture.pfn(page))
    assert fixture.writable(page), f"a page cannot be written though it is no page table any more, after release_{name}"
    fixture.call.store(page, 0x1234)


@law("activate_mm", "dup_mmap", "exit_mmap", "pgd_alloc", "pgd_free", "alloc_pd_clone")
def an_address_space_lives_and_ends(fixture: Fixture, op: str) -> None:
    """Made, used, torn down: its mappings are there, and its root can be written when it is gone.

    Source: ``paravirt_activate_mm()``, ``arch_dup_mmap()`` and ``arch_exit_mmap()`` of asm/mmu_context.h.
    """
    call = fixture.call
    mm = call.function("mm_create").result
    page = fixture.page(word=0x5A5A)
    # 0x67: present, writable, user, accessed and dirty, the kernel's _PAGE_TABLE.
    call.function("mm_map", mm, USER[fixture.bits], page, 0x67, 0)
    root = fixture.cpu.word(mm + fixture.symbol("mm_pgd_offset"))
    use = "dup_mmap" if op == "dup_mmap" else "activate_mm"
    done = call(use, fixture.init_mm, mm)
    assert not done.changes.registers, f"{done.what} changed {done.changes}"
    if "mmu.readonly_tables" in fixture.has:
        assert not fixture.writable(root), f"the root of an address space in use can be written, after {use}"
    before = call("read_cr3").result
    call("write_cr3", call.physical(root))
    found, wanted = call("read_cr3").result & ~0xFFF, call.physical(root)
    assert found == wanted, f"CR3 is {found:#x} after write_cr3 of {wanted:#x}"
    call("write_cr3", before)
    call("exit_mmap", mm)
    call.function("mm_destroy", mm)
    assert fixture.writable(root), "the root of an address space that is gone cannot be written"


@law("set_fixmap")
def a_fixed_page_is_mapped(fixture: Fixture, op: str) -> None:
    """And unmapped again.

    Source: ``native_set_fixmap()`` of arch/x86/mm/pgtable.c.
    """
    page = fixture.page(word=0x6B)
    va = fixture.symbol("fixaddr_top") - FIXMAP * PAGE
    fixture.call(op, FIXMAP, fixture.call.physical(page), KERNEL)
    assert fixture.call.load(va) == 0x6B, f"a page that {op} mapped is not seen at its fixed address"
    fixture.call(op, FIXMAP, 0, 0)
    assert not fixture.read("pte", fixture.stored(fixture.pte(va))) & 1, (
        f"a fixed page is still mapped after {op} of none"
    )


@law("tlb_remove_table")
def a_removed_table_waits_in_the_gather(fixture: Fixture, op: str) -> None:
    """It is appended.

    Source: ``tlb_remove_table()`` of mm/mmu_gather.c.
    """
    gather, tables = fixture.page(), [fixture.page(), fixture.page()]
    for number, table in enumerate(tables, 1):
        fixture.call(op, gather, table)
        count = fixture.cpu.word(gather + fixture.symbol("gather_nr_offset"))
        assert count == number, f"{number} tables wait in the gather, which says {count}"
    place = gather + fixture.symbol("gather_tables_offset")
    found = [fixture.cpu.word(place + fixture.word * number) for number in range(2)]
    assert found == tables, f"the tables that wait in the gather are {_hex(found)}, and were {_hex(tables)}"


@law("flush_tlb_multi", "flush_tlb_others", point="finished", vcpus=2)
def another_vcpu_loses_its_stale_translations(fixture: Fixture, op: str) -> None:
    """At once, or before it runs again where it is off its processor; the caller keeps its registers.

    Source: ``native_flush_tlb_others()``, later ``native_flush_tlb_multi()``, of arch/x86/mm/tlb.c.
    """
    page, machine = fixture.page(), fixture.kept.session.machine
    before = machine.counts["tlb_flushes"]
    # A cpumask with the second CPU alone.
    fixture.cpu.set_word(page, 2)
    if op == "flush_tlb_multi":
        info = page + 64
        for name, value in (("mm", fixture.init_mm), ("start", fixture.area), ("end", fixture.area + PAGE)):
            fixture.cpu.set_word(info + fixture.symbol(f"flush_{name}_offset"), value)
        # stride_shift, behind new_tlb_gen and initiating_cpu: 4 KiB (struct flush_tlb_info of asm/tlbflush.h).
        fixture.cpu.set_u8(info + 3 * fixture.word + 12, 12)
        done = fixture.call(op, page, info)
    else:
        done = fixture.call(op, page, fixture.init_mm, fixture.area)
    machine.platform.before_entry(machine.vcpus[1])
    assert machine.counts["tlb_flushes"] > before or done.hypercalls, f"after {op} nobody was asked to flush"
    assert not done.changes.registers, f"{done.what} changed {done.changes}"


@law("pagetable_reserve", point="op:pagetable_reserve")
def spare_tables_become_memory(fixture: Fixture, op: str) -> None:
    """The used part of the buffer is kept, the rest can be written.

    Source: ``native_pagetable_reserve()`` and ``xen_mapping_pagetable_reserve()`` (commit 279b706bf800).
    """
    start, end, top = (fixture.cpu.u64(fixture.symbol(f"pgt_buf_{name}")) << 12 for name in ("start", "end", "top"))
    done = fixture.call(op, start, end)
    assert top > end, "the guest took more than it needed"
    reserved = [dict(event.fields) for event in done.events_of("memblock-reserve")]
    assert {"start": start, "end": end} in reserved, f"{op} reserved {reserved}, not {start:#x} to {end:#x}"
    for pa in range(end, top, PAGE):
        page = fixture.call.virtual(pa)
        assert fixture.writable(page), f"a table that was not needed, at {page:#x}, cannot be written after {op}"
        fixture.call.store(page, 0x5A)


def _hex(numbers: list[int]) -> str:
    return ", ".join(f"{number:#x}" for number in numbers)
