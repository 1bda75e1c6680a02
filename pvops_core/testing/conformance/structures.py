"""Laws of descriptors, context switches, locks and patching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.testing.conformance.fixture import TLS
from pvops_core.testing.conformance.laws import law

if TYPE_CHECKING:
    from pvops_core.testing.conformance.fixture import Fixture

SMALL: Final = (0x0000_2345, 0x00C1_F300)
"""A data segment for level 3 of 0x12346 pages, accessed already."""
LIMIT: Final = 0x1_2345_FFF
USER_DATA: Final = 0x2B
"""__USER_DS of a 64-bit kernel (asm/segment.h)."""
LSL: Final = b"\x0f\x03\xc1"
"""lsl eax, ecx: what the processor knows of a segment."""


def _limit(fixture: Fixture, entry: int) -> int:
    # Of the GDT, asked for by level 3, which is the segment's own (SDM volume 3, 3.4.2).
    fixture.cpu.set("ecx", entry * 8 + 3)
    fixture.cpu.set("eax", 0)
    back = fixture.cpu.rip
    fixture.call.run(LSL)
    fixture.cpu.rip = back
    return fixture.cpu.get("eax")


def _descriptor(fixture: Fixture, op: str, table: int, entry: int) -> None:
    if fixture.bits == 64:
        page = fixture.page()
        for number, half in enumerate(SMALL):
            fixture.cpu.set_u32(page + 4 * number, half)
        # 0x10 is DESCTYPE_S (asm/desc_defs.h): code or data, of eight bytes.
        fixture.call(op, table, entry, page, *((0x10,) if op == "write_gdt_entry" else ()))
    else:
        fixture.call(op, table, entry, *SMALL)


@law("write_gdt_entry")
def the_processor_finds_a_descriptor_written(fixture: Fixture, op: str) -> None:
    """``lsl`` gives its limit.

    Source: ``native_write_gdt_entry()`` of asm/desc.h; Intel SDM volume 2, LSL.
    """
    gdt, entry = fixture.call.function("cpu_gdt", 0).result, TLS[fixture.bits] + 1
    _descriptor(fixture, op, gdt, entry)
    limit = _limit(fixture, entry)
    assert limit == LIMIT, f"lsl finds the limit {limit:#x} in entry {entry}, of which {op} was told {LIMIT:#x}"


@law("load_tls")
def the_processor_finds_the_threads_segments(fixture: Fixture, op: str) -> None:
    """All three.

    Source: ``native_load_tls()`` of asm/desc.h.
    """
    thread = fixture.page()
    array = thread + fixture.symbol("thread_tls_array_offset")
    for number in range(3):
        fixture.cpu.set_u32(array + 8 * number, SMALL[0])
        fixture.cpu.set_u32(array + 8 * number + 4, SMALL[1])
    fixture.call(op, thread, 0)
    for number in range(3):
        limit = _limit(fixture, TLS[fixture.bits] + number)
        assert limit == LIMIT, f"thread segment {number} of 3 is not in the GDT after {op}: lsl finds {limit:#x}"


@law("write_ldt_entry")
def an_entry_of_an_ldt_is_what_was_written(fixture: Fixture, op: str) -> None:
    """In a page that may become one.

    Source: ``native_write_ldt_entry()`` of asm/desc.h.
    """
    ldt = fixture.page()
    if "alloc_ldt" in fixture.layout:
        fixture.call("alloc_ldt", ldt, 16)
    _descriptor(fixture, op, ldt, 1)
    found, wanted = fixture.bytes(ldt + 8, 8), SMALL[0].to_bytes(4, "little") + SMALL[1].to_bytes(4, "little")
    assert found == wanted, f"entry 1 is {found.hex(' ')} after {op} of {wanted.hex(' ')}"


@law("alloc_ldt", "free_ldt")
def an_ldts_page_is_given_back(fixture: Fixture, _op: str) -> None:
    """Read-only where tables are, and writable at the end.

    Source: ``xen_alloc_ldt()`` and ``xen_free_ldt()`` of arch/x86/xen.
    """
    ldt = fixture.page()
    fixture.call("alloc_ldt", ldt, 16)
    if "mmu.readonly_tables" in fixture.has:
        assert not fixture.writable(ldt), "a page can be written while it is an LDT, after alloc_ldt"
    fixture.call("free_ldt", ldt, 16)
    assert fixture.writable(ldt), "a page cannot be written though it is no LDT any more, after free_ldt"
    fixture.call.store(ldt, 1)


@law("write_idt_entry")
def a_gate_is_what_was_written(fixture: Fixture, op: str) -> None:
    """Gate 3 as gate 4.

    Source: ``native_write_idt_entry()`` of asm/desc.h.
    """
    idt = fixture.symbol("idt_table")
    size = 16 if fixture.bits == 64 else 8
    gate = fixture.bytes(idt + 4 * size, size)
    if fixture.bits == 64:
        page = fixture.page()
        fixture.cpu.write_virtual(page, gate)
        fixture.call(op, idt, 3, page)
    else:
        fixture.call(op, idt, 3, int.from_bytes(gate[:4], "little"), int.from_bytes(gate[4:], "little"))
    found = fixture.bytes(idt + 3 * size, size)
    assert found == gate, f"gate 3 is {found.hex(' ')} after {op} of {gate.hex(' ')}"


@law("load_gdt", "load_idt", "store_gdt", "store_idt")
def tables_may_be_loaded_again(fixture: Fixture, op: str) -> None:
    """The same table: no register is another afterwards.

    Source: ``native_load_gdt()`` and ``native_load_idt()`` of asm/desc.h.
    """
    page = fixture.page()
    gdt = op.endswith("gdt")
    table = fixture.call.function("cpu_gdt", 0).result if gdt else fixture.symbol("idt_table")
    # GDT_ENTRIES are 16 or 32, of eight bytes (asm/segment.h); an IDT has 256 gates.
    size = (128 if fixture.bits == 64 else 256) if gdt else 256 * (16 if fixture.bits == 64 else 8)
    fixture.cpu.write_virtual(page, (size - 1).to_bytes(2, "little") + table.to_bytes(fixture.word, "little"))
    done = fixture.call(op, page)
    assert not done.changes.registers, f"{done.what} changed {done.changes}"
    register = "gdtr" if gdt else "idtr"
    if op.startswith("store"):
        if fixture.bare:
            fixture.cpu.set_u16(page, 0)
            fixture.call(op, page)
            found, wanted = fixture.cpu.u16(page), fixture.cpu.table(register).limit
            assert found == wanted, f"{op} stored the limit {found:#x}; {register} has {wanted:#x}"
    elif fixture.bare:
        # An entry less, so that another limit can be seen to arrive.
        fixture.cpu.set_u16(page, size - 9)
        fixture.call(op, page)
        limit = fixture.cpu.table(register).limit
        assert limit == size - 9, f"{register} has the limit {limit:#x} after {op} of {size - 9:#x}"


@law("set_ldt", "load_tr_desc", "load_gs_index", "load_sp0", "load_esp0", "set_iopl_mask", "update_io_bitmap")
def the_context_may_be_set(fixture: Fixture, op: str) -> None:
    """It comes back with nothing changed but what it is about."""
    thread = fixture.page()
    fixture.cpu.set_word(thread + fixture.symbol("thread_sp0_offset"), fixture.cpu.rsp)
    arguments = {
        "load_sp0": (fixture.cpu.rsp,),
        "load_esp0": (fixture.call.function("cpu_tss", 0).result, thread),
        "set_ldt": (0, 0),
        "load_gs_index": (0,),
        "set_iopl_mask": (0,),
    }.get(op, ())
    # A selector brings its base: MSR_GS_BASE and MSR_KERNEL_GS_BASE are 0xc0000101 and 0xc0000102.
    about = {"set_ldt": {"ldtr"}, "load_tr_desc": {"tr"}, "load_gs_index": {"gs", "msr 0xc0000102", "msr 0xc0000101"}}
    if op == "load_tr_desc":
        fixture.call.function("tss_init", 0)  # a task that is loaded is busy, and cannot be loaded again
    done = fixture.call(op, *arguments)
    assert set(done.changes.registers) <= about.get(op, set()), f"{done.what} changed {done.changes}"


@law("set_ldt")
def an_ldt_is_loaded(fixture: Fixture, op: str) -> None:
    """The processor's register has it, or the hypervisor was told.

    Source: ``native_set_ldt()`` of asm/desc.h.
    """
    ldt = fixture.page()
    if "alloc_ldt" in fixture.layout:
        fixture.call("alloc_ldt", ldt, 16)
    done = fixture.call(op, ldt, 16)
    if fixture.bare:
        table = fixture.cpu.table("ldtr")
        assert (table.base, table.limit) == (ldt, 16 * 8 - 1), f"LDTR is {table} after {op} of 16 entries at {ldt:#x}"
    elif "hypercalls" in fixture.has:
        assert done.hypercalls, f"{op} told the hypervisor nothing"


@law("load_tr_desc")
def a_task_that_is_loaded_is_busy(fixture: Fixture, op: str) -> None:
    """Its descriptor says so, where the processor reads it.

    Source: ``native_load_tr_desc()`` of asm/desc.h; Intel SDM volume 2, LTR.
    """
    fixture.call.function("tss_init", 0)
    done = fixture.call(op)
    if fixture.bare:
        assert done.changes.memory, f"the task's descriptor is not busy after {op}: it is as it was"


@law("load_gs_index")
def a_selector_is_in_gs(fixture: Fixture, op: str) -> None:
    """User data's, or none; or the hypervisor was told.

    Source: ``native_load_gs_index()``; Intel SDM volume 2, SWAPGS.
    """
    if not fixture.bare:
        assert fixture.call(op, USER_DATA).hypercalls, f"{op} told the hypervisor nothing"
        return
    for selector in (USER_DATA, 0):
        fixture.call(op, selector)
        found = fixture.cpu.selector("gs")
        # RPL, the low two bits, may be another level.
        assert found & 0xFFFC == selector & 0xFFFC, f"GS is {found:#x} after {op} of {selector:#x}"


@law("load_sp0", "load_esp0")
def the_stack_for_entries_is_known(fixture: Fixture, op: str) -> None:
    """In the task that the processor reads, or to the hypervisor.

    Source: ``native_load_sp0()`` of asm/processor.h.
    """
    stack = fixture.cpu.rsp - 0x100
    thread = fixture.page()
    fixture.cpu.set_word(thread + fixture.symbol("thread_sp0_offset"), stack)
    arguments = (stack,) if op == "load_sp0" else (fixture.call.function("cpu_tss", 0).result, thread)
    done = fixture.call(op, *arguments)
    if fixture.bare:
        assert done.changes.memory, f"no word of the task has changed after {op}"
    else:
        assert done.hypercalls, f"{op} told the hypervisor nothing"


@law("set_iopl_mask")
def the_io_privilege_is_what_was_set(fixture: Fixture, op: str) -> None:
    """In the flags, where they are the processor's own.

    Source: ``native_set_iopl_mask()`` of asm/processor.h.
    """
    # IOPL is bits 12 and 13 of the flags.
    fixture.call(op, 0x3000)
    if fixture.bare:
        assert fixture.cpu.rflags & 0x3000 == 0x3000, f"IOPL is not 3 after {op} of it"


@law("queued_spin_lock_slowpath", "queued_spin_unlock", vcpus=2)
def a_lock_is_taken_and_given_back(fixture: Fixture, _op: str) -> None:
    """The low byte is the lock.

    Source: ``struct qspinlock`` of asm-generic/qspinlock_types.h; ``native_queued_spin_unlock()``.
    """
    lock = fixture.page()
    fixture.call("queued_spin_lock_slowpath", lock, 0)
    assert fixture.cpu.u8(lock) == 1, f"a free lock is {fixture.cpu.u8(lock)} after it was taken, not 1"
    done = fixture.call("queued_spin_unlock", lock)
    assert fixture.cpu.u8(lock) == 0, f"a lock is {fixture.cpu.u8(lock)} after it was given back, not 0"
    assert not done.changes.registers, f"{done.what} changed {done.changes}"


@law("lock_wait", vcpus=2)
def nobody_waits_for_what_has_changed(fixture: Fixture, op: str) -> None:
    """The byte has another value by now.

    Source: ``pv_wait()`` of kernel/locking/qspinlock_paravirt.h.
    """
    byte = fixture.page(word=1)
    done = fixture.call(op, byte, 0)
    assert not done.changes.registers, f"{done.what} changed {done.changes}"


@law("lock_kick", "vcpu_is_preempted", vcpus=2)
def a_running_vcpu_is_there(fixture: Fixture, op: str) -> None:
    """Kicking it does no harm; it is preempted or not.

    Source: ``pv_kick()`` of kernel/locking/qspinlock_paravirt.h; ``vcpu_is_preempted()``.
    """
    done = fixture.call(op, 0)
    assert done.result in {0, 1}, f"{op} gives {done.result:#x}, which is neither 0 nor 1"
    assert not done.changes.registers, f"{done.what} changed {done.changes}"


@law("patch")
def every_site_takes_what_patch_writes(fixture: Fixture, _op: str) -> None:
    """Code for a site of each op of the table fits, and stays a sound branch if it is one."""
    patch = fixture.kept.patch
    for slot in fixture.layout.slots:
        if slot.op.is_data or slot.op.name == "patch":
            continue
        made = patch(slot.op.name)
        assert made.fits()
        right = made.form != "call" or made.target == made.entry
        assert right, f"the call in place of {slot.op.name} leads to {made.target or 0:#x}, not to {made.entry:#x}"
