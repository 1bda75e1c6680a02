"""Layouts of kernels without type information, found by their symbols: one of every age."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import attrs
import pytest

from pvops_core.images import KernelImage, load_image
from pvops_core.kinds import MachineKind
from pvops_core.ops import Convention
from pvops_core.patching.bysymbols import layout_from_symbols
from pvops_core.patching.sites import read_sites
from pvops_core.patching.tables import find_table
from pvops_core.testing.images import ElfBuilder

NOP = "_paravirt_nop"
IDENT = {4: "_paravirt_ident_32", 8: "_paravirt_ident_64"}
_NOTHING = (
    "activate_mm dup_mmap exit_mmap pgd_free alloc_pte alloc_pmd alloc_pmd_clone alloc_pud release_pte release_pmd "
    "release_pud pte_update pte_update_defer pmd_update pmd_update_defer start_context_switch end_context_switch "
    "enter leave flush alloc_ldt free_ldt adjust_exception_frame startup_ipi_hook"
)
NOTHING = frozenset(_NOTHING.split())
CONVERSIONS = frozenset(f"{verb}{level}" for verb in ("make_",) for level in ("pte", "pgd", "pmd", "pud")) | frozenset(
    f"{level}_val" for level in ("pte", "pgd", "pmd", "pud")
)

_CPU_2_6_32 = """
    get_debugreg set_debugreg clts read_cr0 write_cr0 read_cr4_safe read_cr4 write_cr4 {cr8} load_tr_desc load_gdt
    load_idt store_gdt store_idt set_ldt store_tr load_tls {gs} write_ldt_entry write_gdt_entry write_idt_entry
    alloc_ldt free_ldt load_sp0 set_iopl_mask {bitmap} wbinvd io_delay cpuid read_msr {regs} write_msr {wregs} read_tsc
    read_pmc read_tscp irq_enable_sysexit usergs_sysret64 usergs_sysret32 iret swapgs start_context_switch
    end_context_switch
"""
_MMU = """
    read_cr2 write_cr2 read_cr3 write_cr3 activate_mm dup_mmap exit_mmap flush_tlb_user flush_tlb_kernel
    flush_tlb_single flush_tlb_others pgd_alloc pgd_free alloc_pte alloc_pmd {clone} alloc_pud release_pte release_pmd
    release_pud set_pte set_pte_at set_pmd {pmds} ptep_modify_prot_start ptep_modify_prot_commit pte_val make_pte
    pgd_val make_pgd {upper} lazy_mode.enter lazy_mode.leave {flush} set_fixmap
"""
_IRQ = "save_fl restore_fl irq_disable irq_enable safe_halt halt"
_SPIN = "spin_is_locked spin_is_contended spin_lock spin_lock_flags spin_trylock spin_unlock"
_WIDE = "set_pud pmd_val make_pmd pud_val make_pud set_pgd"


@attrs.frozen
class Age:
    """One age's groups, as the kernel's header has them."""

    bits: int
    groups: dict[str, str]
    marks: tuple[str, ...] = ("paravirt_start_context_switch",)
    alone: str = ""


AGES = {
    "2.6.32-32": Age(
        32,
        {
            "pv_init_ops": "patch",
            "pv_time_ops": "sched_clock get_tsc_khz",
            "pv_cpu_ops": _CPU_2_6_32.format(
                cr8="", gs="", bitmap="set_io_bitmap", regs="rdmsr_regs", wregs="wrmsr_regs"
            ),
            "pv_irq_ops": _IRQ,
            "pv_apic_ops": "startup_ipi_hook",
            "pv_mmu_ops": _MMU.format(clone="alloc_pmd_clone", pmds="pte_update pte_update_defer", upper="", flush=""),
        },
    ),
    "2.6.39-32-pae": Age(
        32,
        {
            "pv_init_ops": "patch",
            "pv_time_ops": "sched_clock get_tsc_khz",
            "pv_cpu_ops": _CPU_2_6_32.format(cr8="", gs="", bitmap="", regs="rdmsr_regs", wregs="wrmsr_regs"),
            "pv_irq_ops": _IRQ,
            "pv_apic_ops": "startup_ipi_hook",
            "pv_mmu_ops": _MMU.format(
                clone="",
                pmds="set_pmd_at pte_update pte_update_defer pmd_update pmd_update_defer",
                upper="set_pte_atomic pte_clear pmd_clear set_pud pmd_val make_pmd",
                flush="",
            ),
            "pv_lock_ops": _SPIN,
        },
        ("paravirt_start_context_switch", "native_set_pmd_at"),
    ),
    "3.2-64": Age(
        64,
        {
            "pv_init_ops": "patch",
            "pv_time_ops": "sched_clock steal_clock get_tsc_khz",
            "pv_cpu_ops": _CPU_2_6_32.format(
                cr8="read_cr8 write_cr8", gs="load_gs_index", bitmap="", regs="rdmsr_regs", wregs="wrmsr_regs"
            ),
            "pv_irq_ops": f"{_IRQ} adjust_exception_frame",
            "pv_apic_ops": "startup_ipi_hook",
            "pv_mmu_ops": _MMU.format(
                clone="",
                pmds="set_pmd_at pte_update pte_update_defer pmd_update pmd_update_defer",
                upper=_WIDE,
                flush="",
            ),
            "pv_lock_ops": _SPIN,
        },
        ("paravirt_start_context_switch", "native_set_pmd_at", "native_steal_clock"),
        "pv_mmu_lazy_mode_flush",
    ),
    "4.9-64": Age(
        64,
        {
            "pv_init_ops": "patch",
            "pv_time_ops": "sched_clock steal_clock",
            "pv_cpu_ops": """
                get_debugreg set_debugreg clts read_cr0 write_cr0 read_cr4 write_cr4 read_cr8 write_cr8 load_tr_desc
                load_gdt load_idt store_idt set_ldt store_tr load_tls load_gs_index write_ldt_entry write_gdt_entry
                write_idt_entry alloc_ldt free_ldt load_sp0 set_iopl_mask wbinvd io_delay cpuid read_msr write_msr
                read_msr_safe write_msr_safe read_pmc usergs_sysret64 iret swapgs start_context_switch
                end_context_switch
            """,
            "pv_irq_ops": f"{_IRQ} adjust_exception_frame",
            "pv_mmu_ops": _MMU.format(clone="", pmds="set_pmd_at pte_update", upper=_WIDE, flush="lazy_mode.flush"),
            "pv_lock_ops": "queued_spin_lock_slowpath queued_spin_unlock wait kick",
        },
        ("paravirt_start_context_switch", "native_set_pmd_at", "native_steal_clock"),
    ),
    "5.2-64": Age(
        64,
        {
            "pv_ops": """
                init.patch time.sched_clock time.steal_clock cpu.io_delay cpu.get_debugreg cpu.set_debugreg cpu.read_cr0
                cpu.write_cr0 cpu.write_cr4 cpu.read_cr8 cpu.write_cr8 cpu.load_tr_desc cpu.load_gdt cpu.load_idt
                cpu.set_ldt cpu.store_tr cpu.load_tls cpu.load_gs_index cpu.write_ldt_entry cpu.write_gdt_entry
                cpu.write_idt_entry cpu.alloc_ldt cpu.free_ldt cpu.load_sp0 cpu.set_iopl_mask cpu.wbinvd cpu.cpuid
                cpu.read_msr cpu.write_msr cpu.read_msr_safe cpu.write_msr_safe cpu.read_pmc cpu.usergs_sysret64
                cpu.iret cpu.swapgs cpu.start_context_switch cpu.end_context_switch irq.save_fl irq.restore_fl
                irq.irq_disable irq.irq_enable irq.safe_halt irq.halt mmu.flush_tlb_user mmu.flush_tlb_kernel
                mmu.flush_tlb_one_user mmu.flush_tlb_others mmu.tlb_remove_table mmu.exit_mmap mmu.read_cr2
                mmu.write_cr2 mmu.read_cr3 mmu.write_cr3 mmu.activate_mm mmu.dup_mmap mmu.pgd_alloc mmu.pgd_free
                mmu.alloc_pte mmu.alloc_pmd mmu.alloc_pud mmu.alloc_p4d mmu.release_pte mmu.release_pmd mmu.release_pud
                mmu.release_p4d mmu.set_pte mmu.set_pte_at mmu.set_pmd mmu.ptep_modify_prot_start
                mmu.ptep_modify_prot_commit mmu.pte_val mmu.make_pte mmu.pgd_val mmu.make_pgd mmu.set_pud mmu.pmd_val
                mmu.make_pmd mmu.pud_val mmu.make_pud mmu.set_p4d mmu.lazy_mode.enter mmu.lazy_mode.leave
                mmu.lazy_mode.flush mmu.set_fixmap lock.queued_spin_lock_slowpath lock.queued_spin_unlock lock.wait
                lock.kick lock.vcpu_is_preempted
            """
        },
    ),
}


def paths(age: Age) -> list[str]:
    found = [
        name if group == "pv_ops" else f"{group}.{name}"
        for group, names in age.groups.items()
        for name in names.split()
    ]
    return [*found, age.alone] if age.alone else found


def kernel(age: Age, *, numbers: Sequence[int] | None = None) -> KernelImage:
    """A kernel of an age, with a site for each slot, or for those of some numbers."""
    size = age.bits // 8
    base = 0xFFFFFFFF81000000 if size == 8 else 0xC1000000
    builder, functions = ElfBuilder(age.bits, base=base), [NOP, IDENT[size], *age.marks, "native_patch"]
    wanted = []
    for path in paths(age):
        member = path.rpartition(".")[2]
        function = NOP if member in NOTHING else IDENT[size] if member in CONVERSIONS else f"native_{member}"
        wanted.append(function)
        functions += [function] if function not in functions else []
    places = {name: base + 16 * number for number, name in enumerate(functions)}
    for name, address in places.items():
        builder.symbol(name, address)
    builder.text(".text", b"\xc3".ljust(16, b"\xcc") * len(functions))
    data_at = base + 0x10000
    data, slots, number = b"", [], 0
    for group, names in {**age.groups, **({age.alone: "x"} if age.alone else {})}.items():
        data = data.ljust(-(-len(data) // 32) * 32, b"\0")
        builder.symbol(group, data_at + len(data))
        for _ in names.split():
            slots.append(data_at + len(data))
            data += places[wanted[number]].to_bytes(size, "little")
            number += 1
    builder.symbol("behind", data_at + len(data))
    builder.section(".data", data + bytes(64), address=data_at)
    text_at = base + 0x20000
    text, records = b"", b""
    for type_ in numbers if numbers is not None else range(len(slots)):
        at = text_at + len(text)
        operand = (slots[type_] - at - 6 if size == 8 else slots[type_]) & 0xFFFFFFFF
        text += b"\xff\x15" + struct.pack("<I", operand)
        records += (at.to_bytes(size, "little") + bytes([type_, 6, 7, 0])).ljust(2 * size, b"\0")
    builder.text(".init.text", text, address=text_at)
    builder.section(".parainstructions", records, address=base + 0x30000)
    return load_image(builder.build(), "small")


@pytest.mark.parametrize("name", AGES)
def test_every_slot_of_every_age_is_named(name: str) -> None:
    age = AGES[name]
    image = kernel(age)
    layout = find_table(image, read_sites(image)).layout
    assert [slot.path for slot in layout.slots] == paths(age)
    assert layout.kind is (
        MachineKind.X86_64 if age.bits == 64 else MachineKind.PAE if "pae" in name else MachineKind.I386
    )


@pytest.mark.parametrize("name", AGES)
def test_how_an_op_is_called(name: str) -> None:
    image = kernel(AGES[name])
    layout = find_table(image, read_sites(image)).layout
    conventions = {slot.path.rpartition(".")[2]: slot.op.convention for slot in layout.slots}
    plain = Convention.SYSV if AGES[name].bits == 64 else Convention.REGPARM3
    assert conventions["write_cr3"] is plain
    assert conventions["iret"] is Convention.JUMP
    assert conventions["save_fl"] is conventions["pte_val"] is Convention.CALLEE_SAVE


@pytest.mark.parametrize("name", AGES)
def test_a_few_sites_are_enough(name: str) -> None:
    """Some groups have no site at all in some kernels."""
    age = AGES[name]
    wanted = paths(age)
    few = [number for number, path in enumerate(wanted) if path.rpartition(".")[2] in {"write_cr3", "iret", "save_fl"}]
    if age.alone:
        few += [next(n for n, path in enumerate(wanted) if path.endswith("spin_lock")), len(wanted) - 1]
    layout = find_table(image := kernel(age, numbers=few), read_sites(image)).layout
    named = {number: slot.path for number, slot in enumerate(layout.slots)}
    assert {number: named[number] for number in few} == {number: wanted[number] for number in few}


def test_sites_that_contradict_one_another_give_none() -> None:
    image = kernel(AGES["3.2-64"])
    cpu, irq = image.symbols["pv_cpu_ops"], image.symbols["pv_irq_ops"]
    assert layout_from_symbols(image, {4: cpu, 6: cpu + 8}) is None
    assert layout_from_symbols(image, {0: cpu + 8}) is None
    assert layout_from_symbols(image, {4: irq, 50: cpu}) is None
    assert layout_from_symbols(image, {4: image.symbols["behind"] + 0x1000}) is None
    assert layout_from_symbols(image, {}) is None


def test_functions_with_no_ops_name_give_none() -> None:
    age = attrs.evolve(AGES["3.2-64"], groups={group: " ".join(f"x{n}" for n in range(4)) for group in ("pv_cpu_ops",)})
    image = kernel(attrs.evolve(age, alone=""))
    assert layout_from_symbols(image, {0: image.symbols["pv_cpu_ops"]}) is None
