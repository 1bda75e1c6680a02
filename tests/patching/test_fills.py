"""The parts that fills are made of."""

from __future__ import annotations

import struct

import pytest
from pvops_xen.kernel import XenKernel

from pvops_core.errors import ImageError
from pvops_core.images import KernelImage, load_image
from pvops_core.images.module import link_module
from pvops_core.ops import LAYOUTS
from pvops_core.patching.fills import assigned, find_bug, find_nop, in_layout
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.testing.kernels import SmallKernel, without_ops
from pvops_core.testing.modules import SmallModule

LAYOUT = LAYOUTS["7.2-64"]
CODE = 0xFFFFFFFF81100000


def store(at: int, slot: int, value: int) -> bytes:
    """``mov qword [rip + slot], value``."""
    return b"\x48\xc7\x05" + struct.pack("<ii", slot - at - 11, value - (1 << 64) if value else 0)


def kernel(*functions: tuple[str, list[tuple[str, str]]], xen: bool = True) -> KernelImage:
    """A kernel with functions that set slots, by path, to other functions."""
    small = SmallKernel(LAYOUT, types=range(len(LAYOUT.slots)), typed=True, functions=["one", "two"])
    builder = small.builder()
    symbols = load_image(builder.build()).symbols
    code = b""
    for name, stores in functions:
        builder.symbol(name, CODE + len(code))
        code += b"\x55"
        for path, function in stores:
            slot = LAYOUT.slot_address(symbols, LAYOUT.by_path(path).type)
            code += store(CODE + len(code), slot, symbols[function] if function else 0)
        code += store(CODE + len(code), symbols["pv_ops"] - 8, symbols["one"]) + b"\x5d\xc3"
    builder.text(".fill.text", code, address=CODE)
    if xen:
        builder.notes(("Xen", 1, bytes(8)))
    return load_image(builder.build(), "small")


def test_assignments_are_read_off_code_and_the_last_counts() -> None:
    image = kernel(
        ("first", [("cpu.cpuid", "one"), ("cpu.cpuid", "two"), ("lock.wait", "one"), ("mmu.set_pgd", "")]),
        ("second", [("lock.wait", "two")]),
    )
    one, two = image.symbols["one"], image.symbols["two"]
    assert assigned(image, LAYOUT, "first") == {"cpu.cpuid": two, "lock.wait": one, "mmu.set_pgd": None}
    assert assigned(image, LAYOUT, "second") == {"lock.wait": two}
    assert assigned(image, LAYOUT, "first", "absent", "second")["lock.wait"] == two


def test_a_function_that_runs_out_of_the_image_is_an_error_with_a_place() -> None:
    image = kernel()
    image.symbols["last"] = CODE + 0x10000000
    with pytest.raises(ImageError, match="last is at 0xffffffff91100000, where the kernel has no code"):
        assigned(image, LAYOUT, "last")


def test_xen_that_sets_slot_by_slot_leaves_the_others_native() -> None:
    image = kernel(
        ("xen_start_kernel", [("cpu.cpuid", "one"), ("cpu.load_gdt", "two"), ("cpu.load_gdt", "one")]),
        ("xen_init_irq_ops", [("irq.halt", "two")]),
        ("xen_init_mmu_ops", [("mmu.read_cr3", "two")]),
    )
    plan = plan_kernel(read_kernel(image), [XenKernel()], 2)
    changed = {
        slot.path: image.symbol_at(now)
        for slot, before, now in zip(LAYOUT.slots, plan.kernel.compiled, plan.table, strict=True)
        if before != now
    }
    assert changed == {
        "cpu.cpuid": ("one", 0),
        "cpu.load_gdt": ("one", 0),
        "irq.halt": ("two", 0),
        "mmu.read_cr3": ("two", 0),
    }


def test_a_module_has_what_its_kernels_code_assigns() -> None:
    image = kernel(("xen_start_kernel", [("cpu.cpuid", "one")]))
    module = link_module(SmallModule(LAYOUT, [LAYOUT.by_path("cpu.cpuid").type]).build(), image)
    (site,) = plan_kernel(read_kernel(module), [XenKernel()], 1).sites
    assert site.final[:1] == b"\xe8"
    operand = int.from_bytes(site.final[1:5], "little", signed=True)
    assert site.site.address + 5 + operand == image.symbols["one"]


def test_a_kernel_without_xen_is_refused() -> None:
    with pytest.raises(ImageError, match="built without XEN_PV: it has no symbol xen_cpu_ops"):
        plan_kernel(read_kernel(kernel(xen=False)), [XenKernel()], 1)
    with pytest.raises(ImageError, match="no Xen note ENTRY"):
        plan_kernel(read_kernel(kernel(("xen_start_kernel", []), xen=False)), [XenKernel()], 1)


def test_ops_that_a_layout_lacks_are_left_out() -> None:
    wanted = {"cpu.io_delay": "one", "cpu.cpuid": "two"}
    assert in_layout(LAYOUT, wanted) == {"cpu.cpuid": "two"}
    assert in_layout(LAYOUTS["6.12-64"], wanted) == wanted


@pytest.mark.parametrize(
    ("name", "nothing", "bug"), [("6.1-64", "_paravirt_nop", "paravirt_BUG"), ("7.2-64", "nop_func", "BUG_func")]
)
def test_what_does_nothing_and_what_stops_have_two_names(name: str, nothing: str, bug: str) -> None:
    image = load_image(SmallKernel(LAYOUTS[name]).builder().build())
    assert (find_nop(image), find_bug(image)) == (image.symbols[nothing], image.symbols[bug])


def test_locks_that_are_no_ops_any_more_are_left_out() -> None:
    """7.3 leads the slow path and the unlock by static calls; Xen's boot code sets what is left in the table."""
    gone = {"lock.queued_spin_lock_slowpath", "lock.queued_spin_unlock"}
    smaller = without_ops(LAYOUT, *gone)
    waits = ["xen_start_kernel", "xen_qlock_wait", "xen_qlock_kick", "__raw_callee_save_xen_vcpu_stolen"]
    builder = SmallKernel(smaller, types=range(len(smaller.slots)), typed=True, functions=waits).builder()
    builder.notes(("Xen", 1, bytes(8)))
    image = load_image(builder.build())
    plan = plan_kernel(read_kernel(image), [XenKernel()], 2)
    held = {slot.path: plan.table[slot.type] for slot in plan.kernel.layout.slots}
    assert held["lock.wait"] == image.symbols["xen_qlock_wait"]
    assert held["lock.vcpu_is_preempted"] == image.symbols["__raw_callee_save_xen_vcpu_stolen"]
    assert not gone & held.keys()
