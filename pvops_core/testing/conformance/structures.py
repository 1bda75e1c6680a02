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


def _limit(ground: Fixture, entry: int) -> int:
    ground.cpu.set("ecx", entry * 8 + 3)
    ground.cpu.set("eax", 0)
    back = ground.cpu.rip
    ground.call.run(LSL)
    ground.cpu.rip = back
    return ground.cpu.get("eax")


def _descriptor(ground: Fixture, op: str, table: int, entry: int) -> None:
    if ground.bits == 64:
        page = ground.page()
        for number, half in enumerate(SMALL):
            ground.cpu.set_u32(page + 4 * number, half)
        ground.call(op, table, entry, page, *((0x10,) if op == "write_gdt_entry" else ()))
    else:
        ground.call(op, table, entry, *SMALL)


@law("write_gdt_entry")
def the_processor_finds_a_descriptor_written(ground: Fixture, op: str) -> None:
    """``lsl`` gives its limit."""
    gdt, entry = ground.call.function("cpu_gdt", 0).result, TLS[ground.bits] + 1
    _descriptor(ground, op, gdt, entry)
    limit = _limit(ground, entry)
    assert limit == LIMIT, f"lsl finds the limit {limit:#x} in entry {entry}, of which {op} was told {LIMIT:#x}"


@law("load_tls")
def the_processor_finds_the_threads_segments(ground: Fixture, op: str) -> None:
    """All three."""
    thread = ground.page()
    array = thread + ground.symbol("thread_tls_array_offset")
    for number in range(3):
        ground.cpu.set_u32(array + 8 * number, SMALL[0])
        ground.cpu.set_u32(array + 8 * number + 4, SMALL[1])
    ground.call(op, thread, 0)
    for number in range(3):
        limit = _limit(ground, TLS[ground.bits] + number)
        assert limit == LIMIT, f"thread segment {number} of 3 is not in the GDT after {op}: lsl finds {limit:#x}"


@law("write_ldt_entry")
def an_entry_of_an_ldt_is_what_was_written(ground: Fixture, op: str) -> None:
    """In a page that may become one."""
    ldt = ground.page()
    if "alloc_ldt" in ground.layout:
        ground.call("alloc_ldt", ldt, 16)
    _descriptor(ground, op, ldt, 1)
    found, wanted = ground.bytes(ldt + 8, 8), SMALL[0].to_bytes(4, "little") + SMALL[1].to_bytes(4, "little")
    assert found == wanted, f"entry 1 is {found.hex(' ')} after {op} of {wanted.hex(' ')}"


@law("alloc_ldt", "free_ldt")
def an_ldts_page_is_given_back(ground: Fixture, _op: str) -> None:
    """Read-only where tables are, and writable at the end."""
    ldt = ground.page()
    ground.call("alloc_ldt", ldt, 16)
    if "mmu.readonly_tables" in ground.has:
        assert not ground.writable(ldt), "a page can be written while it is an LDT, after alloc_ldt"
    ground.call("free_ldt", ldt, 16)
    assert ground.writable(ldt), "a page cannot be written though it is no LDT any more, after free_ldt"
    ground.call.store(ldt, 1)


@law("write_idt_entry")
def a_gate_is_what_was_written(ground: Fixture, op: str) -> None:
    """Gate 3 as gate 4."""
    idt = ground.symbol("idt_table")
    size = 16 if ground.bits == 64 else 8
    gate = ground.bytes(idt + 4 * size, size)
    if ground.bits == 64:
        page = ground.page()
        ground.cpu.write_virtual(page, gate)
        ground.call(op, idt, 3, page)
    else:
        ground.call(op, idt, 3, int.from_bytes(gate[:4], "little"), int.from_bytes(gate[4:], "little"))
    found = ground.bytes(idt + 3 * size, size)
    assert found == gate, f"gate 3 is {found.hex(' ')} after {op} of {gate.hex(' ')}"


@law("load_gdt", "load_idt", "store_gdt", "store_idt")
def tables_may_be_loaded_again(ground: Fixture, op: str) -> None:
    """The same table: no register is another afterwards."""
    page = ground.page()
    gdt = op.endswith("gdt")
    table = ground.call.function("cpu_gdt", 0).result if gdt else ground.symbol("idt_table")
    size = (128 if ground.bits == 64 else 256) if gdt else 256 * (16 if ground.bits == 64 else 8)
    ground.cpu.write_virtual(page, (size - 1).to_bytes(2, "little") + table.to_bytes(ground.word, "little"))
    done = ground.call(op, page)
    assert not done.changes.registers, f"{done.what} changed {done.changes}"
    register = "gdtr" if gdt else "idtr"
    if op.startswith("store"):
        if ground.bare:
            ground.cpu.set_u16(page, 0)
            ground.call(op, page)
            found, wanted = ground.cpu.u16(page), ground.cpu.table(register).limit
            assert found == wanted, f"{op} stored the limit {found:#x}; {register} has {wanted:#x}"
    elif ground.bare:
        ground.cpu.set_u16(page, size - 9)
        ground.call(op, page)
        limit = ground.cpu.table(register).limit
        assert limit == size - 9, f"{register} has the limit {limit:#x} after {op} of {size - 9:#x}"


@law("set_ldt", "load_tr_desc", "load_gs_index", "load_sp0", "load_esp0", "set_iopl_mask", "update_io_bitmap")
def the_context_may_be_set(ground: Fixture, op: str) -> None:
    """It comes back with nothing changed but what it is about."""
    thread = ground.page()
    ground.cpu.set_word(thread + ground.symbol("thread_sp0_offset"), ground.cpu.rsp)
    arguments = {
        "load_sp0": (ground.cpu.rsp,),
        "load_esp0": (ground.call.function("cpu_tss", 0).result, thread),
        "set_ldt": (0, 0),
        "load_gs_index": (0,),
        "set_iopl_mask": (0,),
    }.get(op, ())
    about = {"set_ldt": {"ldtr"}, "load_tr_desc": {"tr"}, "load_gs_index": {"gs", "msr 0xc0000102", "msr 0xc0000101"}}
    if op == "load_tr_desc":
        ground.call.function("tss_init", 0)  # a task that is loaded is busy, and cannot be loaded again
    done = ground.call(op, *arguments)
    assert set(done.changes.registers) <= about.get(op, set()), f"{done.what} changed {done.changes}"


@law("set_ldt")
def an_ldt_is_loaded(ground: Fixture, op: str) -> None:
    """The processor's register has it, or the hypervisor was told."""
    ldt = ground.page()
    if "alloc_ldt" in ground.layout:
        ground.call("alloc_ldt", ldt, 16)
    done = ground.call(op, ldt, 16)
    if ground.bare:
        table = ground.cpu.table("ldtr")
        assert (table.base, table.limit) == (ldt, 16 * 8 - 1), f"LDTR is {table} after {op} of 16 entries at {ldt:#x}"
    elif "hypercalls" in ground.has:
        assert done.hypercalls, f"{op} told the hypervisor nothing"


@law("load_tr_desc")
def a_task_that_is_loaded_is_busy(ground: Fixture, op: str) -> None:
    """Its descriptor says so, where the processor reads it."""
    ground.call.function("tss_init", 0)
    done = ground.call(op)
    if ground.bare:
        assert done.changes.memory, f"the task's descriptor is not busy after {op}: it is as it was"


@law("load_gs_index")
def a_selector_is_in_gs(ground: Fixture, op: str) -> None:
    """User data's, or none; or the hypervisor was told."""
    if not ground.bare:
        assert ground.call(op, USER_DATA).hypercalls, f"{op} told the hypervisor nothing"
        return
    for selector in (USER_DATA, 0):
        ground.call(op, selector)
        found = ground.cpu.selector("gs")
        assert found & 0xFFFC == selector & 0xFFFC, f"GS is {found:#x} after {op} of {selector:#x}"


@law("load_sp0", "load_esp0")
def the_stack_for_entries_is_known(ground: Fixture, op: str) -> None:
    """In the task that the processor reads, or to the hypervisor."""
    stack = ground.cpu.rsp - 0x100
    thread = ground.page()
    ground.cpu.set_word(thread + ground.symbol("thread_sp0_offset"), stack)
    arguments = (stack,) if op == "load_sp0" else (ground.call.function("cpu_tss", 0).result, thread)
    done = ground.call(op, *arguments)
    if ground.bare:
        assert done.changes.memory, f"no word of the task has changed after {op}"
    else:
        assert done.hypercalls, f"{op} told the hypervisor nothing"


@law("set_iopl_mask")
def the_io_privilege_is_what_was_set(ground: Fixture, op: str) -> None:
    """In the flags, where they are the processor's own."""
    ground.call(op, 0x3000)
    if ground.bare:
        assert ground.cpu.rflags & 0x3000 == 0x3000, f"IOPL is not 3 after {op} of it"


@law("queued_spin_lock_slowpath", "queued_spin_unlock", vcpus=2)
def a_lock_is_taken_and_given_back(ground: Fixture, _op: str) -> None:
    """The low byte is the lock."""
    lock = ground.page()
    ground.call("queued_spin_lock_slowpath", lock, 0)
    assert ground.cpu.u8(lock) == 1, f"a free lock is {ground.cpu.u8(lock)} after it was taken, not 1"
    done = ground.call("queued_spin_unlock", lock)
    assert ground.cpu.u8(lock) == 0, f"a lock is {ground.cpu.u8(lock)} after it was given back, not 0"
    assert not done.changes.registers, f"{done.what} changed {done.changes}"


@law("lock_wait", vcpus=2)
def nobody_waits_for_what_has_changed(ground: Fixture, op: str) -> None:
    """The byte has another value by now."""
    byte = ground.page(word=1)
    done = ground.call(op, byte, 0)
    assert not done.changes.registers, f"{done.what} changed {done.changes}"


@law("lock_kick", "vcpu_is_preempted", vcpus=2)
def a_running_vcpu_is_there(ground: Fixture, op: str) -> None:
    """Kicking it does no harm; it is preempted or not."""
    done = ground.call(op, 0)
    assert done.result in {0, 1}, f"{op} gives {done.result:#x}, which is neither 0 nor 1"
    assert not done.changes.registers, f"{done.what} changed {done.changes}"


@law("patch")
def every_site_takes_what_patch_writes(ground: Fixture, _op: str) -> None:
    """Code for a site of each op of the table fits, and stays a sound branch if it is one."""
    patch = ground.lab.patch
    for slot in ground.layout.slots:
        if slot.op.is_data or slot.op.name == "patch":
            continue
        made = patch(slot.op.name)
        assert made.fits()
        right = made.form != "call" or made.target == made.entry
        assert right, f"the call in place of {slot.op.name} leads to {made.target or 0:#x}, not to {made.entry:#x}"
