"""Laws of the ops that read and write registers and the interrupt flag, and of those that change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.testing.conformance.laws import law
from pvops_core.x86 import ARITHMETIC, CR0_TS, FLAG_IF, MSR_FS_BASE

if TYPE_CHECKING:
    from pvops_core.testing.conformance.fixture import Fixture

CR4_TSD: Final = 4
NO_MSR: Final = 0x1234_5678
NOTHING: Final = frozenset[str]()
QUIET: Final = """
    io_delay wbinvd save_fl read_cr0 read_cr2 read_cr3 read_cr4 read_cr4_safe store_tr sched_clock read_tsc get_cpu_khz
    flush_tlb_user flush_tlb_kernel mmu_lazy_mode_enter mmu_lazy_mode_leave mmu_lazy_mode_flush cpu_lazy_mode_enter
    cpu_lazy_mode_leave invalidate_io_bitmap
"""


@law(*QUIET.split())
def leaves_registers_and_tables_alone(fixture: Fixture, op: str) -> None:
    """No register that the caller may rely on, no control register, no descriptor table is another afterwards."""
    done = fixture.may_refuse(op)
    assert not done.changes.registers, f"{done.what} changed {done.changes}"
    assert not done.switches


@law("irq_disable", "irq_enable", "restore_fl", "save_fl", also=("save_fl",))
def the_flag_is_what_was_set_last(fixture: Fixture, op: str) -> None:
    """Whatever was before: enabled, disabled, restored to either.

    Source: ``native_save_fl()`` and its neighbours of asm/irqflags.h.
    """
    call = fixture.call
    for wanted in (FLAG_IF, 0, 0, FLAG_IF, FLAG_IF, 0):
        usual = "irq_enable" if wanted else "irq_disable"
        # Bit 1 of the flags is always set (SDM volume 1, 3.4.3).
        done = call(op, wanted | 2) if op == "restore_fl" else call(usual)
        found = call("save_fl").result & FLAG_IF
        said = ("off", "on")
        assert found == wanted, f"interrupts were put {said[wanted > 0]} by {done.what} and are {said[found > 0]}"
        assert set(done.changes.registers) <= {"rflags"}, f"{done.what} changed {done.changes}"
        changed = done.changes.registers.get("rflags")
        assert changed is None or (changed.old ^ changed.new) & ~ARITHMETIC == FLAG_IF, done.changes


@law("read_cr0", "write_cr0", also=("write_cr0", "read_cr0"))
def cr0_reads_as_it_was_written(fixture: Fixture, _op: str) -> None:
    """CR0_TS set and cleared again.

    Source: Intel SDM volume 3, 2.5.
    """
    call = fixture.call
    before = call("read_cr0").result
    for wanted in (before | CR0_TS, before & ~CR0_TS):
        done = call("write_cr0", wanted)
        assert set(done.changes.registers) <= {"cr0"}, f"{done.what} changed {done.changes}"
        assert call("read_cr0").result & CR0_TS == wanted & CR0_TS, (
            f"CR0.TS does not read as it was written by {done.what}"
        )


@law("clts")
def clts_clears_ts(fixture: Fixture, op: str) -> None:
    """And nothing else of CR0.

    Source: Intel SDM volume 2, CLTS.
    """
    call = fixture.call
    call("write_cr0", call("read_cr0").result | CR0_TS)
    before = call("read_cr0").result
    done = call(op)
    after = call("read_cr0").result
    assert before ^ after == CR0_TS, f"{op} made {after:#x} of CR0 {before:#x}; only TS, bit 3, was to be cleared"
    assert set(done.changes.registers) <= {"cr0"}, f"{done.what} changed {done.changes}"


@law("read_cr2", "write_cr2")
def cr2_reads_as_it_was_written(fixture: Fixture, _op: str) -> None:
    """The address of a fault.

    Source: Intel SDM volume 3, 2.5.
    """
    for wanted in (fixture.area, 0x1000):
        fixture.may_refuse("write_cr2", wanted)
        found = fixture.call("read_cr2").result
        assert found == wanted, f"CR2 was written as {wanted:#x} and reads as {found:#x}"


@law("read_cr3")
def cr3_is_the_kernels_root(fixture: Fixture, op: str) -> None:
    """In the guest's own physical addresses.

    Source: ``__native_read_cr3()``; Intel SDM volume 3, 2.5.
    """
    root = fixture.cpu.word(fixture.init_mm + fixture.symbol("mm_pgd_offset"))
    # The low twelve bits are flags, or a PCID (SDM volume 3, 2.5).
    found, wanted = fixture.call(op).result & ~0xFFF, fixture.call.physical(root)
    assert found == wanted, f"{op} gives {found:#x}; the kernel's root is at {wanted:#x}"


@law("read_cr4", "read_cr4_safe", "write_cr4")
def cr4_may_be_written_back(fixture: Fixture, op: str) -> None:
    """What was read, changes nothing; on the processor itself a bit more, read again.

    Source: ``native_write_cr4()``; Intel SDM volume 3, 2.5.
    """
    if op == "write_cr4" and "read_cr4" not in fixture.layout:
        value = fixture.cpu.cr4
    else:
        value = fixture.may_refuse("read_cr4" if op == "write_cr4" else op).result
    assert not fixture.bare or value == fixture.cpu.cr4, f"{op}: CR4 is {fixture.cpu.cr4:#x}, and {value:#x} was read"
    done = fixture.may_refuse("write_cr4", value)
    assert not done.changes.registers, f"{done.what} changed {done.changes}"
    if fixture.bare:
        fixture.call("write_cr4", value ^ CR4_TSD)
        assert fixture.cpu.cr4 == value ^ CR4_TSD, (
            f"CR4 is {fixture.cpu.cr4:#x} after write_cr4 of {value ^ CR4_TSD:#x}"
        )


@law("store_tr")
def the_task_register_is_stored(fixture: Fixture, op: str) -> None:
    """Its selector, where the guest has a task of the processor's.

    Source: Intel SDM volume 2, STR.
    """
    if fixture.bare:
        found, wanted = fixture.call(op).result, fixture.cpu.table("tr").selector
        assert found == wanted, f"{op} gives {found:#x}; the task register holds {wanted:#x}"


@law("get_debugreg", "set_debugreg")
def debug_registers_read_as_they_were_written(fixture: Fixture, _op: str) -> None:
    """Each of the four addresses by itself.

    Source: ``native_set_debugreg()`` of asm/debugreg.h.
    """
    for number in range(4):
        fixture.may_refuse("set_debugreg", number, fixture.area + number)
    for number in range(4):
        found, wanted = fixture.may_refuse("get_debugreg", number).result, fixture.area + number
        assert found == wanted, f"DR{number} was written as {wanted:#x} and reads as {found:#x}"


@law("read_msr", "write_msr", "read_msr_safe", "write_msr_safe", also=("read_msr_safe",))
def msrs_read_as_they_were_written(fixture: Fixture, op: str) -> None:
    """MSR_FS_BASE, which every 64-bit kernel writes.

    Source: ``native_read_msr()`` and its neighbours of asm/msr.h.
    """
    safe = "_safe" if op.endswith("_safe") else ""
    error = fixture.page(word=5)
    # In halves, as the op takes it: together a canonical address, for the register holds no other.
    wrote = fixture.call(f"write_msr{safe}", MSR_FS_BASE, 0x1234_5000, 0x7F)
    arguments = (MSR_FS_BASE, error) if safe else (MSR_FS_BASE,)
    found = fixture.call(f"read_msr{safe}", *arguments).result
    assert found == 0x7F_1234_5000, f"MSR_FS_BASE was written as 0x7f12345000 and reads as {found:#x}"
    assert set(wrote.changes.registers) <= {f"msr {MSR_FS_BASE:#x}"}, f"{wrote.what} changed {wrote.changes}"
    if safe:
        assert wrote.result == 0, f"write_msr_safe of an MSR that is there gives {wrote.result:#x}, not 0"
        assert fixture.cpu.u32(error) == 0, "read_msr_safe of an MSR that is there says that there was an error"


@law("read_msr_safe", "write_msr_safe")
def an_msr_that_is_not_there_is_an_error(fixture: Fixture, op: str) -> None:
    """-EIO, and no fault.

    Source: ``native_read_msr_safe()`` and ``native_write_msr_safe()`` of asm/msr.h.
    """
    error = fixture.page()
    if op == "read_msr_safe":
        fixture.call(op, NO_MSR, error)
        assert fixture.cpu.u32(error) != 0, f"{op} of an MSR that is not there, {NO_MSR:#x}, says that all was well"
    elif "hypercalls" not in fixture.has:  # a hypervisor may drop such writes
        assert fixture.call(op, NO_MSR, 1, 0).result, f"{op} of an MSR that is not there, {NO_MSR:#x}, gives no error"


@law("cpuid")
def cpuid_answers_in_its_four_words(fixture: Fixture, op: str) -> None:
    """The leaf is in the first; nothing else is written.

    Source: ``native_cpuid()``; Intel SDM volume 2, CPUID.
    """
    page = fixture.page()
    places = [page + 4 * number for number in range(4)]
    done = fixture.call(op, *places)
    assert fixture.cpu.u32(page) > 0, f"{op} of leaf 0: the highest leaf is 0"
    assert any(fixture.cpu.u32(place) for place in places[1:]), f"{op} of leaf 0 names no vendor"
    assert not done.changes.registers, f"{done.what} changed {done.changes}"
    beside = [place for place in done.changes.memory if not page <= place < page + 16]
    assert not beside, f"{op} writes beside its four words: {done.changes}"


@law("sched_clock", "read_tsc")
def time_goes_on(fixture: Fixture, op: str) -> None:
    """Never back."""
    times = [fixture.call(op).result for _ in range(4)]
    assert times == sorted(times), f"time goes back: {op} gave {times}"
    assert times[-1] > times[0], f"time stands still: {op} gave {times}"


@law("get_cpu_khz")
def the_processor_has_a_speed(fixture: Fixture, op: str) -> None:
    """In kHz: between 1 MHz and 100 GHz."""
    speed = fixture.call(op).result
    assert 10**3 <= speed <= 10**8, f"{op} gives {speed} kHz; 1 MHz to 100 GHz is likely"


@law("get_wallclock", "set_wallclock")
def the_wall_clock_may_be_set_to_itself(fixture: Fixture, _op: str) -> None:
    """Without an error; where it can be set, to another minute too."""
    now = fixture.call("get_wallclock").result
    assert 0 < now < 1 << 32, f"get_wallclock gives {now} seconds since 1970"
    done = fixture.call("set_wallclock", now).result
    # An int of -1, as its register holds it.
    assert done in {0, 0xFFFF_FFFF}, f"set_wallclock gives {done:#x}; it is 0, or -1 where the clock cannot be set"
    after = fixture.call("get_wallclock").result
    assert abs(after - now) <= 1, f"the clock was set to {now} and reads {after}"
    if not done and fixture.bare:
        fixture.call("set_wallclock", now + 60)
        after = fixture.call("get_wallclock").result
        assert abs(after - now - 60) <= 1, f"the clock was set to {now + 60} and reads {after}"


@law("apic_read", "apic_write", "apic_write_atomic")
def apic_registers_read_as_they_were_written(fixture: Fixture, op: str) -> None:
    """The task priority.

    Source: ``native_apic_mem_read()`` and ``native_apic_mem_write()`` of asm/apic.h.
    """
    write = "apic_write" if op == "apic_read" else op
    # 0x80 is the task priority (asm/apicdef.h, APIC_TASKPRI); 0 comes last, since it holds up nothing.
    for value in (0x20, 0):
        fixture.may_refuse(write, 0x80, value)
        if "kind.apic" in fixture.has or fixture.backend.base is None:
            found = fixture.may_refuse("apic_read", 0x80).result
            assert found == value, f"the task priority was written as {value:#x} by {write} and reads as {found:#x}"


@law("safe_halt", point="running")
def safe_halt_returns_with_an_interrupt(fixture: Fixture, op: str) -> None:
    """None is lost: the guest's tick has gone on, and interrupts are on.

    Source: ``native_safe_halt()`` of asm/irqflags.h: hlt in the shadow of sti.
    """
    call, cpu = fixture.call, fixture.cpu
    for _ in range(3):
        before = cpu.word(fixture.symbol("ticks"))
        call("irq_disable")
        call(op)
        after = cpu.word(fixture.symbol("ticks"))
        assert after > before, f"{op} came back without an interrupt: the guest's tick is {after}, as it was"
        assert call("save_fl").result & FLAG_IF, f"interrupts are off after {op}"
