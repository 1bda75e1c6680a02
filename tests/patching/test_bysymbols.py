"""Layouts of kernels without type information, found by their symbols: one of every age."""

from __future__ import annotations

import attrs
import pytest

from pvops_core.kinds import MachineKind
from pvops_core.ops import Convention
from pvops_core.patching.bysymbols import layout_from_symbols
from pvops_core.patching.sites import read_sites
from pvops_core.patching.tables import find_table
from tests.patching.ages import AGES, Age, kernel, paths


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
    kept = Convention.CALLEE_SAVE if AGES[name].identities else plain
    assert conventions["save_fl"] is conventions["pte_val"] is kept


@pytest.mark.parametrize("name", AGES)
def test_the_patch_op_is_told_of_clobbers_until_the_tables_became_one(name: str) -> None:
    image = kernel(AGES[name])
    patch = find_table(image, read_sites(image)).layout.by_op("patch").op
    clobbers = [] if "pv_ops" in AGES[name].groups else ["clobbers"]
    assert [arg.name for arg in patch.args] == ["type", *clobbers, "insnbuf", "addr", "len"]


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


NARROW = """
    init.patch time.sched_clock time.steal_clock cpu.io_delay mmu.flush_tlb_user mmu.flush_tlb_kernel
    mmu.flush_tlb_one_user mmu.flush_tlb_others mmu.tlb_remove_table mmu.exit_mmap
"""
LOCKS = "lock.queued_spin_lock_slowpath lock.queued_spin_unlock lock.wait lock.kick lock.vcpu_is_preempted"


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("locks", ["", LOCKS])
@pytest.mark.parametrize("gone", ["", "mmu.tlb_remove_table", "cpu.io_delay"])
def test_a_kernel_from_4_20_on_without_xen_has_a_few_ops(bits: int, locks: str, gone: str) -> None:
    """No PARAVIRT_XXL."""
    names = " ".join(name for name in (NARROW + locks).split() if name != gone)
    image = kernel(Age(bits, {"pv_ops": names}, marks=(), templates="", identities=False))
    assert [slot.path for slot in find_table(image, read_sites(image)).layout.slots] == names.split()


@pytest.mark.parametrize("gone", ["pv_lock_ops", "pv_apic_ops"])
@pytest.mark.parametrize("name", [name for name, age in AGES.items() if "pv_mmu_ops" in age.groups])
def test_a_group_that_is_configured_away(name: str, gone: str) -> None:
    """No PARAVIRT_SPINLOCKS, no X86_LOCAL_APIC."""
    groups = {group: names for group, names in AGES[name].groups.items() if group != gone}
    age = attrs.evolve(AGES[name], groups=groups, alone="")
    image = kernel(age)
    assert [slot.path for slot in find_table(image, read_sites(image)).layout.slots] == paths(age)


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
