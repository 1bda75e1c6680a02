from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from pvops_native.kernel import NativeKernel
from pvops_xen.kernel import XenKernel

from pvops_core.errors import ImageError, UsageError
from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.altinstructions.alternatives import FEATURES
from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.patching.fills import Target, callee_save, queued_spinlocks
from pvops_core.patching.kernel import KernelPlan, patched_image, plan_kernel, read_kernel
from pvops_core.testing.kernels import SITE, STUB, Alternative, SmallKernel
from tests.patching.given import Given

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout
    from pvops_core.patching.fills import KernelFill

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
GENERIC = "vmlinuz-6.1.0-56-amd64"
CLOUD_612 = "vmlinuz-6.12.117+deb12-cloud-amd64"
GENERIC_612 = "vmlinuz-6.12.117+deb12-amd64"
CLOUD_72 = "vmlinuz-7.2.13+deb14-cloud-amd64"
PAE = "vmlinuz-6.1.0-50-686-pae"
NATIVE: list[KernelFill] = [NativeKernel()]
XEN: list[KernelFill] = [NativeKernel(), XenKernel()]

Kernels = Callable[[str], "KernelImage"]


class Kvm:
    """What a third party writes for KVM (arch/x86/kernel/kvm.c): a few lines."""

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, Target]:
        del kernel, layout
        slots: dict[str, Target] = {"cpu.io_delay": "kvm_io_delay"}
        if cpus > 1:
            slots |= {"mmu.flush_tlb_multi": "kvm_flush_tlb_multi", "mmu.tlb_remove_table": "tlb_remove_table"}
            slots |= queued_spinlocks(wait="kvm_wait", kick="kvm_kick_cpu")
            slots["lock.vcpu_is_preempted"] = callee_save("__kvm_vcpu_is_preempted")
        return slots

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        del kernel, cpus
        return frozenset()


def column(plan: KernelPlan, stage: str) -> str:
    return b"".join(getattr(site, stage) for site in plan.sites).hex()


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("record", "kernel", "fills"),
    [
        ("native-cloud", CLOUD, NATIVE),
        ("xen-generic-1cpu", GENERIC, XEN),
        ("c612-native", CLOUD_612, NATIVE),
        ("g612-xen1", GENERIC_612, XEN),
        ("c72-native", CLOUD_72, NATIVE),
    ],
)
def test_plan_is_what_a_real_boot_did(
    kernels: Kernels, oracle: Callable[[str], Mapping[str, Any]], record: str, kernel: str, fills: list[KernelFill]
) -> None:
    boot, image = oracle(record), kernels(kernel)
    assert image.sha256 == boot["vmlinux_sha256"]
    plan = plan_kernel(read_kernel(image), fills, 1)
    addresses, at = [], int(boot["va0"], 16)
    for step in boot["dva"]:
        at += step
        addresses.append(at)
    assert [site.site.address for site in plan.sites] == addresses
    assert [site.site.type for site in plan.sites] == boot["type"]
    assert [boot["secs"].index(site.site.section) for site in plan.sites] == [int(digit) for digit in boot["sec"]]
    for (path, address, _), held, slot in zip(boot["ops"], plan.table, plan.kernel.layout.slots, strict=True):
        assert (slot.path, held) == (path, int(address, 16) if address else 0)
    assert column(plan, "original") == boot["file"]
    assert column(plan, "final") == boot["final"]
    assert plan.steps == (("paravirt", "final") if "pv" in boot else ("final",))
    if "pv" in boot:
        assert column(plan, "paravirt") == boot["pv"]
    else:
        assert {site.paravirt for site in plan.sites} == {None}


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("kernel", "cpus", "counts"),
    [
        (GENERIC_612, 1, (4260, 6, 53)),
        (GENERIC_612, 2, (4316, 3, 0)),
        (CLOUD_72, 1, (4097, 13, 58)),
        (CLOUD_72, 2, (4158, 10, 0)),
    ],
)
def test_xen_of_today(kernels: Kernels, kernel: str, cpus: int, counts: tuple[int, int, int]) -> None:
    """Calls, nops and inlined sites; those of the first kernel are a recorded boot's, on any number of CPUs."""
    plan = plan_kernel(read_kernel(kernels(kernel)), XEN, cpus)
    nop = plan.kernel.padding.nops(6)
    called = sum(site.final[0] == 0xE8 for site in plan.sites)
    nothing = sum(site.final == nop for site in plan.sites)
    assert (called, nothing, sum(site.inlined for site in plan.sites)) == counts
    targets = {
        path: plan.kernel.image.symbols[name]
        for path, name in {"cpu.write_cr4": "xen_write_cr4", "mmu.enter_mmap": "xen_enter_mmap"}.items()
    }
    assert {path: plan.table[plan.kernel.layout.by_path(path).type] for path in targets} == targets
    assert plan.table[plan.kernel.layout.by_path("mmu.write_cr3").type] == plan.kernel.image.symbols["xen_write_cr3"]


@pytest.mark.kernel
@pytest.mark.parametrize("kernel", [CLOUD, GENERIC])
def test_xen_with_two_cpus_differs_from_native_at_every_site(kernels: Kernels, kernel: str) -> None:
    read = read_kernel(kernels(kernel))
    native, xen = plan_kernel(read, NATIVE, 2), plan_kernel(read, XEN, 2)
    assert all(one.final != other.final for one, other in zip(native.sites, xen.sites, strict=True))
    assert xen.features == frozenset(FEATURES.values())
    assert [site.final for site in native.sites] == [site.final for site in plan_kernel(read, NATIVE, 1).sites]


@pytest.mark.kernel
def test_xen_with_one_cpu_keeps_the_native_locks(kernels: Kernels) -> None:
    read = read_kernel(kernels(GENERIC))
    native, xen = plan_kernel(read, NATIVE, 1), plan_kernel(read, XEN, 1)
    same = {
        read.layout.slots[one.site.type].path.partition(".")[0]
        for one, other in zip(native.sites, xen.sites, strict=True)
        if one.final == other.final
    }
    assert same == {"lock"}
    kinds = [xen.kind(site.site.type) for site in xen.sites]
    assert (kinds.count("call") + kinds.count("bug"), kinds.count("nop")) == (3842, 6)


@pytest.mark.kernel
def test_i386_native(kernels: Kernels) -> None:
    plan = plan_kernel(read_kernel(kernels(PAE)), NATIVE, 1)
    assert len(plan.sites) == 265
    assert plan.kernel.layout.name == "6.1-32"
    text = plan.kernel.image.section(".text")
    assert text is not None
    for site in plan.sites:
        assert site.original[:2] == b"\xff\x15"
        if site.paravirt[0] == 0xE8:
            target = site.site.address + 5 + int.from_bytes(site.paravirt[1:5], "little", signed=True)
            assert target == plan.table[site.site.type]
            assert target in text
        else:
            assert site.paravirt == bytes.fromhex("8d b6 00 00 00 00")
    assert {site.final for site in plan.sites if site.final != site.paravirt} == {
        bytes.fromhex("c6 00 00 8d 76 00"),
        bytes.fromhex("31 c0 8d 74 26 00"),
    }


@pytest.mark.kernel
def test_i386_has_no_xen_pv(kernels: Kernels) -> None:
    with pytest.raises(ImageError, match=r"symbol xen_cpu_ops.*Xen note ENTRY"):
        plan_kernel(read_kernel(kernels(PAE)), XEN, 1)


@pytest.mark.kernel
@pytest.mark.parametrize("cpus", [1, 2])
def test_a_third_partys_kvm(kernels: Kernels, cpus: int) -> None:
    plan = plan_kernel(read_kernel(kernels(CLOUD)), [*NATIVE, Kvm()], cpus)
    symbols, layout = plan.kernel.image.symbols, plan.kernel.layout
    assert plan.table[layout.by_path("cpu.io_delay").type] == symbols["kvm_io_delay"]
    locks = {layout.slots[site.site.type].path: site for site in plan.sites}
    for path, feature in (("lock.queued_spin_unlock", "PVUNLOCK"), ("lock.vcpu_is_preempted", "VCPUPREEMPT")):
        assert (FEATURES[feature] in plan.features) == (cpus > 1)
        assert (locks[path].final[0] == 0xE8) == (cpus > 1)
    assert locks["irq.save_fl"].final[:2] == b"\x9c\x58"


@pytest.mark.kernel
def test_output_differs_at_sites_only(kernels: Kernels) -> None:
    plan = plan_kernel(read_kernel(kernels(PAE)), NATIVE, 1)
    before, after = bytearray(plan.kernel.image.data), patched_image(plan)
    assert len(before) == len(after)
    for site in plan.sites:
        at = plan.kernel.image.offset_of(site.site.address)
        assert after[at : at + site.site.length] == site.final
        before[at : at + site.site.length] = site.final
    assert bytes(before) == after


# Small kernels: the rules one by one.

LAYOUT = LAYOUTS["6.1-64"]


def number(path: str) -> int:
    return LAYOUT.by_path(path).type


def every() -> list[int]:
    return list(range(len(LAYOUT.slots)))


def plan_small(kernel: SmallKernel, *fills: KernelFill, cpus: int = 1) -> KernelPlan:
    return plan_kernel(read_kernel(load_image(kernel.builder().build(), "small")), fills, cpus)


@pytest.mark.parametrize("name", ["6.1-64", "6.1-32"])
def test_paravirt_step_calls_what_the_slot_holds(name: str) -> None:
    layout = LAYOUTS[name]
    kernel = SmallKernel(layout, types=[*range(len(layout.slots))] * 2)
    plan = plan_small(kernel)
    nop = NOPS[NopKind.MODERN_64 if layout.pointer_size == 8 else NopKind.MODERN_32](6)
    addresses = {name: kernel.base + STUB * index for index, name in reversed([*enumerate(kernel.names)])}
    for site in plan.sites:
        function = kernel.linked[site.site.type]
        if function == "_paravirt_nop":
            assert site.paravirt == nop
            continue
        distance = addresses[function] - site.site.address - 5
        assert site.paravirt == b"\xe8" + distance.to_bytes(4, "little", signed=True) + b"\x90"
        assert site.final == site.paravirt


def test_empty_slot_calls_the_bug() -> None:
    kernel = SmallKernel(LAYOUT, types=every())
    plan = plan_small(kernel, Given({"mmu.set_pgd": None}))
    site = plan.sites[number("mmu.set_pgd")]
    target = site.site.address + 5 + int.from_bytes(site.paravirt[1:5], "little", signed=True)
    assert target == plan.kernel.image.symbols["paravirt_BUG"]
    assert plan.kind(number("mmu.set_pgd")) == "bug"


@pytest.mark.parametrize("name", ["paravirt_nop", "_paravirt_nop"])
def test_the_nop_has_two_names(name: str) -> None:
    plan = plan_small(SmallKernel(LAYOUT, types=every()), Given({"cpu.io_delay": name}))
    assert plan.sites[number("cpu.io_delay")].paravirt == NOPS[NopKind.MODERN_64](6)


def test_later_fills_win() -> None:
    kernel = SmallKernel(LAYOUT, types=every(), functions=["first", "second"])
    plan = plan_small(
        kernel, Given({"cpu.io_delay": "first", "cpu.wbinvd": "first"}), Given({"cpu.io_delay": "second"})
    )
    symbols = plan.kernel.image.symbols
    assert plan.table[number("cpu.io_delay")] == symbols["second"]
    assert plan.table[number("cpu.wbinvd")] == symbols["first"]


@pytest.mark.parametrize("shape", [12, 13, 14])
@pytest.mark.parametrize("xen", [False, True])
def test_alternatives_follow_the_forced_features(shape: int, *, xen: bool) -> None:
    save_fl = number("irq.save_fl")
    entries = [Alternative(save_fl, FEATURES["XENPV"], inverted=True, code=b"\x9c\x58")]
    entries += [Alternative(1, 3, inverted=False, code=b"\x90")] * 3
    kernel = SmallKernel(LAYOUT, types=every(), alternatives=entries, shape=shape)
    plan = plan_small(kernel, Given({}, *["XENPV"] * xen))
    site = plan.sites[save_fl]
    assert site.final == (site.paravirt if xen else bytes.fromhex("9c580f1f4000"))
    assert plan.sites[1].final == plan.sites[1].paravirt


def test_set_cap_looks_at_the_table_and_at_nothing_else() -> None:
    unlock = number("lock.queued_spin_unlock")
    entries = [Alternative(unlock, FEATURES["PVUNLOCK"], inverted=True, code=b"\xc6\x07\x00")]
    kernel = SmallKernel(LAYOUT, types=every(), alternatives=entries, functions=["anyones_unlock"])
    assert plan_small(kernel).sites[unlock].final == bytes.fromhex("c607000f1f00")
    plan = plan_small(kernel, Given({"lock.queued_spin_unlock": "anyones_unlock"}))
    assert plan.sites[unlock].final == plan.sites[unlock].paravirt
    assert plan.features == {FEATURES["PVUNLOCK"]}


def test_what_a_fill_gets_wrong_is_told() -> None:
    kernel = SmallKernel(LAYOUT, types=every())
    with pytest.raises(ImageError, match=r"no symbol kvm_wait, which lock\.wait is set to"):
        plan_small(kernel, Given({"lock.wait": "kvm_wait"}))
    with pytest.raises(UsageError, match=r"no op path 'lock\.sleep'"):
        plan_small(kernel, Given({"lock.sleep": "_paravirt_nop"}))
    with pytest.raises(UsageError, match="no CPU feature 'XENHVM'"):
        plan_small(kernel, Given({}, "XENHVM"))


def test_target_out_of_reach_is_the_images_fault() -> None:
    with pytest.raises(ImageError) as caught:
        plan_small(SmallKernel(LAYOUT, types=every()), Given({"cpu.io_delay": 0x1000}))
    assert caught.value.field == ".parainstructions[0].instr"


def test_kernel_without_sites() -> None:
    with pytest.raises(ImageError, match=r"\.altinstructions: annotates no call of an op"):
        plan_small(SmallKernel(LAYOUT))


def test_operand_that_does_not_agree_with_the_type() -> None:
    raw = bytearray(SmallKernel(LAYOUT, types=[*every(), 0]).builder().build())
    image = load_image(bytes(raw))
    text = image.section(".init.text")
    assert text is not None
    at = text.offset + SITE * len(every()) + 2
    raw[at] ^= 0x20
    with pytest.raises(ImageError) as caught:
        read_kernel(load_image(bytes(raw)))
    assert caught.value.field == f".parainstructions[{len(every())}].type"
