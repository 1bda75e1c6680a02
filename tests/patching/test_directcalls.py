"""Kernels from 6.8 on, in small: their sites are ALTERNATIVEs with a direct call."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs
import pytest

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.altinstructions.alternatives import ALWAYS, FEATURES, read_alternatives
from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.patching.derived import DERIVED
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.patching.sites import read_sites
from pvops_core.patching.tables import find_table
from pvops_core.testing.kallsyms import TableShape
from pvops_core.testing.kernels import Alternative, SmallKernel, without_ops
from tests.patching.given import Given

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout

TODAY = ("6.12-64", "7.2-64")
LAYOUT = LAYOUTS["7.2-64"]
NOP = NOPS[NopKind.MODERN_64]


def small(layout: Layout, **more: object) -> SmallKernel:
    return attrs.evolve(SmallKernel(layout, types=range(len(layout.slots))), **more)  # type: ignore[arg-type]


def image(kernel: SmallKernel) -> KernelImage:
    return load_image(kernel.builder().build(), "small")


@pytest.mark.parametrize("name", TODAY)
@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("stripped", [None, TableShape(64, "after"), TableShape(64, "own")])
def test_sites_are_told_by_their_operands(name: str, stripped: TableShape | None, *, typed: bool) -> None:
    layout = LAYOUTS[name]
    kernel = image(small(layout, typed=typed, stripped=stripped))
    sites = read_sites(kernel)
    assert [site.type for site in sites] == list(range(len(layout.slots)))
    assert {(site.length, site.section, site.clobbers) for site in sites} == {(6, ".init.text", 0)}
    table = find_table(kernel, sites)
    assert table.layout is layout
    assert table.slots == {slot.type: kernel.symbols[slot.symbol] + slot.offset for slot in layout.slots}


@pytest.mark.parametrize("name", TODAY)
def test_every_call_becomes_what_its_slot_holds(name: str) -> None:
    kernel = small(LAYOUTS[name], typed=True)
    plan = plan_kernel(read_kernel(image(kernel)), [Given({"mmu.set_pgd": None})], 1)
    assert plan.steps == ("final",)
    for site in plan.sites:
        function = kernel.linked[site.site.type]
        empty = plan.kernel.layout.slots[site.site.type].path == "mmu.set_pgd"
        target = kernel.addresses["BUG_func" if empty else function]
        distance = target - site.site.address - 5
        called = b"\xe8" + distance.to_bytes(4, "little", signed=True) + b"\x90"
        assert site.final == (NOP(6) if function == "nop_func" else called)
        assert site.paravirt is None
        assert not site.inlined


@pytest.mark.parametrize("xen", [False, True])
def test_the_last_entry_that_applies_wins(*, xen: bool) -> None:
    number = LAYOUT.by_path("irq.save_fl").type
    entries = [Alternative(number, FEATURES["XENPV"], inverted=True, code=b"\x9c\x58")]
    kernel = small(LAYOUT, typed=True, alternatives=entries)
    site = plan_kernel(read_kernel(image(kernel)), [Given({}, *["XENPV"] * xen)], 1).sites[number]
    assert site.inlined is not xen
    assert (site.final[0] == 0xE8) is xen
    if not xen:
        assert site.final == bytes.fromhex("9c580f1f4000")


def test_locks_in_a_table_of_their_own_can_be_filled() -> None:
    unlock = LAYOUT.by_path("lock.queued_spin_unlock").type
    entries = [Alternative(unlock, FEATURES["PVUNLOCK"], inverted=True, code=b"\xc6\x07\x00")]
    kernel = small(LAYOUT, typed=True, alternatives=entries, functions=["their_unlock"])
    read = read_kernel(image(kernel))
    assert plan_kernel(read, [], 1).sites[unlock].final == bytes.fromhex("c607000f1f00")
    plan = plan_kernel(read, [Given({"lock.queued_spin_unlock": "their_unlock"})], 1)
    assert plan.features == {FEATURES["PVUNLOCK"]}
    assert plan.table[unlock] == kernel.addresses["their_unlock"]
    assert plan.sites[unlock].final[0] == 0xE8


def between(*gone: str) -> Layout:
    """A layout that no catalogue has: locks in the main table, MSRs as one u64, some ops gone."""
    young, slots = LAYOUTS["7.2-64"], []
    for slot in LAYOUTS["6.12-64"].slots:
        if slot.path not in gone:
            same = [other for other in young.slots if other.path == slot.path]
            op = same[0].op if same else slot.op
            slots.append(attrs.evolve(slot, type=len(slots), op=op, offset=8 * len(slots)))
    return attrs.evolve(LAYOUTS["6.12-64"], name="between", slots=tuple(slots))


def test_a_generation_between_is_read_by_its_types_alone() -> None:
    kernel = small(between("mmu.tlb_remove_table"), typed=True)
    read = read_kernel(image(kernel))
    assert read.layout.name == DERIVED
    assert [slot.path for slot in read.layout.slots] == [slot.path for slot in kernel.layout.slots]
    assert read.layout.by_path("cpu.write_msr").op is LAYOUT.by_path("cpu.write_msr").op
    assert read.layout.by_path("cpu.read_cr0").op is LAYOUTS["6.1-64"].by_path("cpu.read_cr0").op
    assert len(plan_kernel(read, [], 1).sites) == 82


def test_an_op_whose_prototype_is_new_has_the_kernels_types() -> None:
    op = attrs.evolve(LAYOUT.by_path("cpu.write_msr").op, args=LAYOUT.by_path("cpu.set_debugreg").op.args)
    slots = [attrs.evolve(slot, op=op) if slot.path == "cpu.write_msr" else slot for slot in LAYOUT.slots]
    read = read_kernel(image(small(attrs.evolve(LAYOUT, slots=tuple(slots)), typed=True)))
    found = read.layout.by_path("cpu.write_msr").op
    assert (found.name, found.prototype) == ("write_msr", "void write_msr(int arg1, unsigned long arg2)")


def broken(change: bytes, section: str, at: int) -> KernelImage:
    raw = bytearray(small(LAYOUT, typed=True).builder().build())
    place = load_image(bytes(raw)).section(section)
    assert place is not None
    raw[place.offset + at : place.offset + at + len(change)] = change
    return load_image(bytes(raw), "broken")


@pytest.mark.parametrize(
    ("change", "section", "at", "field", "says"),
    [
        (b"\xe8", ".init.text", 8, "[1].instr", "e8 15 .*no call \\*slot of 6 bytes"),
        (b"\x05", ".altinstructions", 14 + 12, "[1].instr", "no call"),
        (b"\xe9", ".altinstr_replacement", 10, "[2].repl", "is e9"),
        (b"\x00", ".altinstructions", 3 * 14 + 13, "[3].repl", "is empty"),
        (struct.pack("<i", 0x12345), ".init.text", 2, "[0].instr", "no slot of a 7.2-64 table"),
        (b"\x7f", ".altinstructions", 3, "[0]", "are not text"),
    ],
)
def test_a_record_that_the_kernel_would_stop_at_is_named(
    change: bytes, section: str, at: int, field: str, says: str
) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        read_sites(broken(change, section, at))
    assert caught.value.field == f".altinstructions{field}"
    assert caught.value.offset is not None


def test_sites_that_overlap_are_refused() -> None:
    kernel = small(LAYOUT, typed=True)
    (distance,) = struct.unpack_from("<i", image(kernel).altinstructions or b"", 28)
    with pytest.raises(ImageError, match="overlaps the site"):
        read_sites(broken(struct.pack("<i", distance - 16), ".altinstructions", 28))


def test_tables_without_symbols_cannot_be_found() -> None:
    builder = small(LAYOUT, typed=True).builder()
    builder._symbols = [entry for entry in builder._symbols if not entry[0].startswith("pv_ops")]
    with pytest.raises(ImageError, match="do not name pv_ops"):
        read_sites(load_image(builder.build()))


def test_flags_of_a_record() -> None:
    entries = [Alternative(0, FEATURES["XENPV"], inverted=True, code=b"\xfa")]
    first, second = read_alternatives(image(small(LAYOUT, alternatives=entries)))[:2]
    assert (first.feature, first.inverted, first.direct) == (ALWAYS, False, True)
    assert (second.feature, second.inverted, second.direct) == (FEATURES["XENPV"], True, False)


@pytest.mark.parametrize("typed", [True, False])
def test_a_32_bit_kernel(*, typed: bool) -> None:
    """Its calls name their slots by address; its nops are others."""
    layout = attrs.evolve(LAYOUTS["6.1-32"], record_size=0)
    kernel = small(layout, typed=typed)
    plan = plan_kernel(read_kernel(image(kernel)), [], 1)
    assert plan.kernel.layout is LAYOUTS["6.1-32"]
    assert [site.site.type for site in plan.sites] == list(range(13))
    for site in plan.sites:
        function = kernel.linked[site.site.type]
        distance = kernel.addresses[function] - site.site.address - 5
        called = b"\xe8" + distance.to_bytes(4, "little", signed=True) + b"\x90"
        assert site.final == (NOPS[NopKind.MODERN_32](6) if function == "nop_func" else called)


LOCKS = ("lock.queued_spin_lock_slowpath", "lock.queued_spin_unlock")


def test_a_table_of_no_known_layout_is_not_taken_for_another() -> None:
    """7.3 is as 7.2 but for two lock ops: without types its three would pass for the first three of 7.2's five."""
    layout = without_ops(LAYOUT, *LOCKS)
    builder = SmallKernel(layout, range(len(layout.slots))).builder()
    with pytest.raises(ImageError, match="fits none of the layouts"):
        find_table(image := load_image(builder.build()), read_sites(image))
    end = image.symbols["pv_ops_lock"] + 8 * len([slot for slot in layout.slots if slot.symbol == "pv_ops_lock"])
    builder.symbol("what_follows", end)
    with pytest.raises(ImageError, match="symbols: have a table pv_ops that fits none"):
        find_table(image := load_image(builder.build()), read_sites(image))
    typed = load_image(SmallKernel(layout, range(len(layout.slots)), typed=True).builder().build())
    assert len(find_table(typed, read_sites(typed)).layout.slots) == len(layout.slots)
