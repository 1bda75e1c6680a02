"""Kernels of every age before type information, written in memory: tables, call sites, native's patch op, ALTERNATIVEs.

Members and their order are those of the kernels' headers: include/asm-x86/paravirt.h to 2.6.27,
arch/x86/include/asm/paravirt_types.h of 2.6.32, 2.6.39, 3.2, 3.11, 4.9, 4.14, 4.20, 5.2 and 5.10.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from pvops_core.images import KernelImage, load_image
from pvops_core.ops import LAYOUTS
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from pvops_core.ops import Layout

NOP = "_paravirt_nop"
IDENT = {4: "_paravirt_ident_32", 8: "_paravirt_ident_64"}
_NOTHING = (
    "activate_mm dup_mmap exit_mmap pgd_free alloc_pte alloc_pmd alloc_pmd_clone alloc_pud release_pte release_pmd "
    "release_pud pte_update pte_update_defer pmd_update pmd_update_defer start_context_switch end_context_switch "
    "enter leave flush alloc_ldt free_ldt adjust_exception_frame startup_ipi_hook alloc_p4d release_p4d wait kick"
)
NOTHING = frozenset(_NOTHING.split())
NOTHING_32 = frozenset({"usergs_sysret64", "usergs_sysret32", "swapgs"})
"""Empty on i386."""
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
    record: str = "<iiHBBx"
    """``struct alt_instr`` in struct's letters, without what pads it behind its fields."""
    templates: str = "{group}_{op}"
    """What native_patch's templates are called; nothing where one table has them all."""
    identities: bool = True
    """From 2.6.30 on: conversions that change nothing are one function, and they and the flag's ops keep registers."""


def _of(layout: Layout, templates: str = "{group}_{op}") -> Age:
    groups: dict[str, str] = {}
    for slot in layout.slots:
        name = slot.path.removeprefix(f"{slot.symbol}.")
        groups[slot.symbol] = f"{groups.get(slot.symbol, '')} {name}"
    return Age(32, groups, record="<IIBBB", templates=templates, identities=False)


AGES = {
    "2.6.23-32": _of(LAYOUTS["2.6.23-lapic"], "{op}"),
    "2.6.24-32": _of(LAYOUTS["2.6.24"]),
    "2.6.24-32-pae": _of(LAYOUTS["2.6.24-pae"]),
    "2.6.27-64": Age(
        64,
        {
            "pv_init_ops": "patch arch_setup memory_setup post_allocator_init banner",
            "pv_time_ops": "time_init get_wallclock set_wallclock sched_clock get_tsc_khz",
            "pv_cpu_ops": """
                get_debugreg set_debugreg clts read_cr0 write_cr0 read_cr4_safe read_cr4 write_cr4 read_cr8 write_cr8
                load_tr_desc load_gdt load_idt store_gdt store_idt set_ldt store_tr load_tls load_gs_index
                write_ldt_entry write_gdt_entry write_idt_entry load_sp0 set_iopl_mask wbinvd io_delay cpuid read_msr
                write_msr read_tsc read_pmc read_tscp irq_enable_sysexit usergs_sysret64 usergs_sysret32 iret swapgs
                lazy_mode.enter lazy_mode.leave
            """,
            "pv_irq_ops": f"{_IRQ} adjust_exception_frame",
            "pv_apic_ops": "apic_write apic_read setup_boot_clock setup_secondary_clock startup_ipi_hook",
            "pv_mmu_ops": "pagetable_setup_start pagetable_setup_done "
            + _MMU.format(
                clone="alloc_pmd_clone",
                pmds="pte_update pte_update_defer",
                upper="set_pud pmd_val make_pmd pud_val make_pud set_pgd",
                flush="",
            ).replace("pte_val make_pte", "pte_val pte_flags make_pte"),
            "pv_lock_ops": "spin_is_locked spin_is_contended spin_lock spin_trylock spin_unlock",
        },
        ("paravirt_enter_lazy_cpu",),
        record="<QQBBB",
        identities=False,
    ),
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
        record="<IIBBB",
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
        record="<IIHBB",
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
        record="<QQHBB",
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
    "4.14-64": Age(
        64,
        {
            "pv_init_ops": "patch",
            "pv_time_ops": "sched_clock steal_clock",
            "pv_cpu_ops": """
                get_debugreg set_debugreg read_cr0 write_cr0 write_cr4 read_cr8 write_cr8 load_tr_desc load_gdt load_idt
                set_ldt store_tr load_tls load_gs_index write_ldt_entry write_gdt_entry write_idt_entry alloc_ldt
                free_ldt load_sp0 set_iopl_mask wbinvd io_delay cpuid read_msr write_msr read_msr_safe write_msr_safe
                read_pmc usergs_sysret64 iret swapgs start_context_switch end_context_switch
            """,
            "pv_irq_ops": _IRQ,
            "pv_mmu_ops": """
                read_cr2 write_cr2 read_cr3 write_cr3 activate_mm dup_mmap exit_mmap flush_tlb_user flush_tlb_kernel
                flush_tlb_one_user flush_tlb_others pgd_alloc pgd_free alloc_pte alloc_pmd alloc_pud alloc_p4d
                release_pte release_pmd release_pud release_p4d set_pte set_pte_at set_pmd ptep_modify_prot_start
                ptep_modify_prot_commit pte_val make_pte pgd_val make_pgd set_pud pmd_val make_pmd pud_val make_pud
                set_p4d lazy_mode.enter lazy_mode.leave lazy_mode.flush set_fixmap
            """,
            "pv_lock_ops": "queued_spin_lock_slowpath queued_spin_unlock wait kick vcpu_is_preempted",
        },
        ("paravirt_start_context_switch", "native_steal_clock"),
    ),
    "4.20-64": Age(
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
_FLUSHING = AGES["2.6.39-32-pae"].groups
AGES["3.11-32-pae"] = attrs.evolve(
    AGES["2.6.39-32-pae"],
    groups=_FLUSHING | {"pv_mmu_ops": _FLUSHING["pv_mmu_ops"].replace("leave", "leave lazy_mode.flush")},
)
AGES["4.9-32-pae"] = attrs.evolve(
    AGES["3.11-32-pae"],
    groups=AGES["3.11-32-pae"].groups
    | {"pv_cpu_ops": _FLUSHING["pv_cpu_ops"].replace("read_tscp", "").replace("usergs_sysret32", "")},
)
_WIDER = AGES["4.14-64"].groups
AGES["4.14-32-pae"] = attrs.evolve(
    AGES["4.14-64"],
    bits=32,
    groups=_WIDER
    | {
        "pv_cpu_ops": _WIDER["pv_cpu_ops"].replace("read_cr8 write_cr8", "").replace("load_gs_index", ""),
        "pv_mmu_ops": _WIDER["pv_mmu_ops"]
        .replace("set_pud pmd_val", "set_pte_atomic pte_clear pmd_clear set_pud pmd_val")
        .replace("pud_val make_pud\n                set_p4d", ""),
    },
)
_LATER = AGES["4.20-64"].groups["pv_ops"]
for _gone in ("cpu.read_cr8 cpu.write_cr8", "cpu.set_iopl_mask", "mmu.set_pte_at"):
    _LATER = _LATER.replace(_gone, "")
_LATER = _LATER.replace("cpu.wbinvd", "cpu.invalidate_io_bitmap cpu.update_io_bitmap cpu.wbinvd")
AGES["5.3-64"] = attrs.evolve(AGES["4.20-64"], templates="")
AGES["5.10-64"] = attrs.evolve(AGES["4.20-64"], groups={"pv_ops": _LATER}, templates="")


ONE = frozenset({"pv_ops", "paravirt_ops"})
"""Tables in one variable: paths in them do not begin with its name."""

TEMPLATES = {
    32: {"irq_disable": "fa", "irq_enable": "fb", "save_fl": "9c58", "restore_fl": "509d", "read_cr3": "0f20d8"},
    64: {"irq_disable": "fa", "irq_enable": "fb", "save_fl": "9c58", "restore_fl": "579d", "read_cr3": "0f20d8"},
}
"""What native_patch writes in place of a call, by the ops that all ages have."""


def paths(age: Age) -> list[str]:
    """The kernel's path of each slot, by type number."""
    found = [
        name if group in ONE else f"{group}.{name}" for group, names in age.groups.items() for name in names.split()
    ]
    return [*found, age.alone] if age.alone else found


def linked(age: Age) -> list[str]:
    """The function in each slot, by type number."""
    members = (path.rpartition(".")[2] for path in paths(age))
    return [
        NOP
        if member in NOTHING or (age.bits == 32 and member in NOTHING_32)
        else IDENT[age.bits // 8]
        if age.identities and member in CONVERSIONS
        else f"native_{member}"
        for member in members
    ]


def kernel(
    age: Age,
    *,
    numbers: Sequence[int] | None = None,
    functions: Sequence[str] = (),
    more: Callable[[ElfBuilder], None] = lambda _: None,
) -> KernelImage:
    """A kernel of an age, with a site for each slot, or for those of some numbers, more functions, and what else."""
    size = age.bits // 8
    base = 0xFFFFFFFF81000000 if size == 8 else 0xC1000000
    builder, slots = ElfBuilder(age.bits, base=base), linked(age)
    names = dict.fromkeys(
        [NOP, *([IDENT[size]] if age.identities else []), *age.marks, "native_patch", *slots, *functions]
    )
    places = {name: base + 16 * number for number, name in enumerate(names)}
    for name, address in places.items():
        builder.symbol(name, address)
    text = b"\xc3".ljust(16, b"\xcc") * len(places)
    builder.text(".text", text + _templates(builder, age, base + len(text)))
    addresses = _tables(builder, age, base + 0x10000, [places[name] for name in slots])
    _sites(builder, age, base + 0x20000, addresses, range(len(addresses)) if numbers is None else numbers)
    more(builder)
    return load_image(builder.build(), "small")


def _templates(builder: ElfBuilder, age: Age, at: int) -> bytes:
    """What native_patch copies, each between two symbols, or the symbol of the table that it all stands in."""
    if not age.templates:
        builder.symbol("patch_data_xxl", at)
        return b""
    code = b""
    for op, text in TEMPLATES[age.bits].items():
        path = next((path for path in paths(age) if path.rpartition(".")[2] == op), op)
        name = age.templates.format(group=path.rpartition(".")[0], op=op)
        builder.symbol(f"start_{name}", at + len(code))
        code += bytes.fromhex(text)
        builder.symbol(f"end_{name}", at + len(code))
    return code


def _tables(builder: ElfBuilder, age: Age, start: int, targets: Sequence[int]) -> list[int]:
    """The groups' variables; gives the address of every slot."""
    data, slots, size = b"", [], age.bits // 8
    for group, names in {**age.groups, **({age.alone: "x"} if age.alone else {})}.items():
        data = data.ljust(-(-len(data) // 32) * 32, b"\0")
        builder.symbol(group, start + len(data))
        for _ in names.split():
            data += targets[len(slots)].to_bytes(size, "little")
            slots.append(start + len(data) - size)
    builder.symbol("behind", start + len(data))
    builder.section(".data", data + bytes(64), address=start)
    return slots


def _sites(builder: ElfBuilder, age: Age, start: int, slots: Sequence[int], numbers: Sequence[int]) -> None:
    """A call through each slot and its record, behind the calls one ALTERNATIVE; last records lack their padding."""
    size = age.bits // 8
    text, records = b"", b""
    for type_ in numbers:
        at = start + len(text)
        operand = (slots[type_] - at - 6 if size == 8 else slots[type_]) & 0xFFFFFFFF
        text += b"\xff\x15" + struct.pack("<I", operand)
        records += (at.to_bytes(size, "little") + bytes([type_, 6, 7, 0])).ljust(2 * size, b"\0")
    builder.text(".init.text", text + b"\x0f\x0d\x00\x90", address=start)
    builder.section(".parainstructions", records[: len(records) - size + 4], address=start + 0x10000)
    at = start + 0x20000
    places = (start + len(text), builder.text(".altinstr_replacement", b"\x0f\x18\x00", address=start + 0x30000))
    places = (places[0] - at, places[1] - at - 4) if "i" in age.record else places
    builder.section(".altinstructions", struct.pack(age.record, *places, 3, 4, 3), address=at)
