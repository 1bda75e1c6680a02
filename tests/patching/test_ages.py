"""Kernels of every age, from their sites to what they make of them on bare metal and under Xen."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_native.kernel import NativeKernel
from pvops_xen.kernel import XenKernel

from pvops_core.patching.altinstructions.alternatives import read_alternatives
from pvops_core.patching.altinstructions.whole import plan_alternatives
from pvops_core.patching.kernel import KernelPlan, patched_image, plan_kernel, read_kernel
from pvops_core.patching.sites import read_sites
from tests.patching.ages import AGES, CONVERSIONS, IDENT, NOP, TEMPLATES, kernel, linked, paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.testing.images import ElfBuilder

BY_TABLE = frozenset({"read_cr2", "write_cr3", "wbinvd", "swapgs", "usergs_sysret64", "queued_spin_unlock"})
"""What more a kernel with one table of patchlets inlines (5.3)."""


def plan(name: str) -> KernelPlan:
    return plan_kernel(read_kernel(kernel(AGES[name])), [NativeKernel()], 1)


@pytest.mark.parametrize("name", AGES)
def test_sites_and_alternatives_are_read(name: str) -> None:
    image = kernel(AGES[name])
    assert [site.type for site in read_sites(image)] == list(range(len(paths(AGES[name]))))
    (entry,) = read_alternatives(image)
    assert (entry.feature, entry.length, entry.replacement_length) == (3, 4, 3)
    assert image.read(entry.address, 3) == b"\x0f\x0d\x00"


@pytest.mark.parametrize("name", AGES)
def test_templates_stand_where_native_patch_has_them(name: str) -> None:
    planned, age = plan(name), AGES[name]
    became = {path.rpartition(".")[2]: site for path, site in zip(paths(age), planned.sites, strict=True)}
    nops = planned.context.nops
    for op, text in TEMPLATES[age.bits].items():
        code = bytes.fromhex(text)
        assert became[op].final == became[op].paravirt == code + nops(6 - len(code)), op


@pytest.mark.parametrize("name", AGES)
def test_other_ops_are_called(name: str) -> None:
    planned, age = plan(name), AGES[name]
    symbols = planned.kernel.image.symbols
    inlined = TEMPLATES[age.bits].keys() | BY_TABLE
    for path, function, site in zip(paths(age), linked(age), planned.sites, strict=True):
        op = path.rpartition(".")[2]
        if function == NOP or (name == "2.6.23-32" and op in CONVERSIONS):
            assert site.final == planned.context.nops(6), path
        elif op not in inlined and function != IDENT[age.bits // 8]:
            jump = op in {"iret", "irq_enable_sysexit", "usergs_sysret32"}
            assert site.final[0] == (0xE9 if jump else 0xE8), path
            distance = int.from_bytes(site.final[1:5], "little", signed=True)
            assert site.site.address + 5 + distance & (1 << age.bits) - 1 == symbols[function], path


@pytest.mark.parametrize("name", AGES)
def test_nothing_else_changes(name: str) -> None:
    planned = plan(name)
    image = planned.kernel.image
    places = plan_alternatives(planned, frozenset({3})).groups
    after = patched_image(planned, places)
    allowed = {at for site in planned.sites for at in range(site.site.address, site.site.address + 6)}
    allowed |= {at for place in places for at in range(place.group.address, place.group.address + place.group.length)}
    changed = {at for at, (was, now) in enumerate(zip(image.data, after, strict=True)) if was != now}
    assert changed
    assert changed <= {image.offset_of(at, 1) for at in allowed}


@pytest.mark.parametrize("placed", [0, 1])
def test_xen_places_vcpu_info_where_the_kernel_asks_for_it(placed: int) -> None:
    """2.6.24 has it switched off as built, and its page tables' last step sets slots by itself."""
    age, names = AGES["2.6.24-32-pae"], ["xen_start_kernel", "xen_save_fl_direct", "xen_alloc_pt"]
    before = kernel(age, functions=names)
    symbols = before.symbols
    slot = read_kernel(before).layout.by_path("pv_mmu_ops.alloc_pt")

    def xen(builder: ElfBuilder) -> None:
        builder.notes(("Xen", 1, bytes(8)))
        builder.symbol("have_vcpu_info_placement", builder.section(".xen", struct.pack("<I", placed)))
        store = struct.pack("<HII", 0x05C7, symbols[slot.symbol] + slot.offset, symbols["xen_alloc_pt"])
        builder.symbol("xen_pagetable_setup_done", builder.text(".done", store + b"\xc3"))

    image = kernel(age, functions=names, more=xen)
    layout = read_kernel(image).layout
    slots = XenKernel().slots(image, layout, 1)
    assert slots["pv_mmu_ops.alloc_pt"] == image.symbols["xen_alloc_pt"]
    assert ("pv_irq_ops.save_fl" in slots) == bool(placed)


def test_a_table_that_xen_copies_by_stores_empties_what_it_does_not_name() -> None:
    """A compiler may make stores of ``pv_cpu_ops = xen_cpu_ops``; a few stores to a group are no copy."""
    age, names = AGES["3.2-64"], ["xen_start_kernel", "xen_cpuid"]
    before = kernel(age, functions=names)
    table = [slot for slot in read_kernel(before).layout.slots if slot.symbol == "pv_cpu_ops"]
    target = before.symbols["xen_cpuid"]

    def storing(count: int) -> Callable[[ElfBuilder], None]:
        def more(builder: ElfBuilder) -> None:
            at, code = before.symbols["behind"] + 0x100000, b""
            for slot in table[:count]:
                place = before.symbols[slot.symbol] + slot.offset - at - len(code) - 11
                code += b"\x48\xc7\x05" + struct.pack("<ii", place, target - (1 << 64))
            builder.symbol("xen_start_kernel", builder.text(".xen", code + b"\xc3", address=at))
            builder.notes(("Xen", 1, bytes(8)))

        return more

    for count, empty in ((len(table) - 5, 5), (3, 0)):
        image = kernel(age, functions=names[1:], more=storing(count))
        slots = XenKernel().slots(image, read_kernel(image).layout, 1)
        found = [slots.get(slot.path, "native") for slot in table]
        assert found == [target] * count + ([None] * empty or ["native"] * (len(table) - count))


XEN = ("paravirt_patch_default", "xen_save_fl", "xen_cpuid", "xen_wait")


def _under_xen(name: str, *, counts: bool) -> dict[str, str]:
    """What slots hold under Xen with one CPU, by op: a table for each group, and stores."""
    age = AGES[name]
    before = kernel(age, functions=XEN)
    layout, symbols, bits = read_kernel(before).layout, before.symbols, age.bits
    paths_ = {slot.path.removeprefix("pv_").replace("_ops.", "."): slot for slot in layout.slots}
    at = symbols["behind"] + 0x100000
    mask = at - 0x1000

    def stored(op: str, function: str, start: int) -> bytes:
        place = layout.slot_address(symbols, paths_[op].type)
        value = struct.pack("<I", symbols[function] & 0xFFFFFFFF)
        if bits == 64:
            return b"\x48\xc7\x05" + struct.pack("<i", place - start - 11) + value
        return b"\xc7\x05" + struct.pack("<I", place) + value

    def tables(builder: ElfBuilder) -> None:
        builder.notes(("Xen", 1, bytes(8)))
        for op in ("cpu.cpuid", "irq.save_fl"):
            group = op.partition(".")[0]
            words = [symbols[f"xen_{op[4:]}" if path == op else "native_patch"] for path in paths_ if path[:3] == group]
            data = b"".join(word.to_bytes(bits // 8, "little") for word in words)
            builder.symbol(f"xen_{group}_ops", builder.section(f".xen.{group}", data))
        builder.symbol("__cpu_possible_mask", mask)
        operand = struct.pack("<i", mask - at - 7) if bits == 64 else struct.pack("<I", mask)
        code = b"\x83\x3d" + operand + b"\x01" if counts else b""  # cmp dword [mask], 1
        code += stored("lock.wait", "xen_wait", at + len(code))
        builder.symbol("xen_init_spinlocks", builder.text(".locks", code + b"\xc3", address=at))
        code = stored("init.patch", "paravirt_patch_default", at + 0x1000)
        builder.symbol("xen_start_kernel", builder.text(".start", code + b"\xc3", address=at + 0x1000))

    image = kernel(age, functions=XEN, more=tables)
    table = plan_kernel(read_kernel(image), [XenKernel()], 1).table
    return {path: (image.symbol_at(table[slot.type]) or ("", 0))[0] for path, slot in paths_.items()}


@pytest.mark.parametrize("name", ["4.14-32-pae", "4.14-64", "4.20-64", "5.3-64", "5.10-64"])
def test_xens_tables_are_of_one_group_each(name: str) -> None:
    held = _under_xen(name, counts=False)
    assert held["cpu.cpuid"] == "xen_cpuid"
    assert held["irq.save_fl"] == "xen_save_fl"
    assert held["cpu.load_gdt"] == held["irq.halt"] == "native_patch"
    assert held["mmu.write_cr3"] == "native_write_cr3"
    assert held["init.patch"] == "paravirt_patch_default"


@pytest.mark.parametrize("name", ["4.14-32-pae", "4.14-64", "5.3-64"])
def test_locks_on_one_cpu_are_native_where_a_kernel_counts_them(name: str) -> None:
    assert _under_xen(name, counts=False)["lock.wait"] == "xen_wait"
    assert _under_xen(name, counts=True)["lock.wait"] == NOP
