"""What a Linux guest of KVM does to its own table."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pvops_core.backends import chain, load_backends
from pvops_core.cli import main
from pvops_core.ops import LAYOUTS
from pvops_core.patching.kernel import plan_kernel, read_kernel

if TYPE_CHECKING:
    from pvops_core.backends import Backend, KernelFill
    from pvops_core.images import KernelImage

SYMBOLS = [
    "kvm_io_delay",
    "kvm_flush_tlb_multi",
    "tlb_remove_table",
    "kvm_wait",
    "kvm_kick_cpu",
    "__raw_callee_save___kvm_vcpu_is_preempted",
]
LOCKS = {
    "lock.queued_spin_lock_slowpath": "__pv_queued_spin_lock_slowpath",
    "lock.queued_spin_unlock": "__raw_callee_save___pv_queued_spin_unlock",
    "lock.wait": "kvm_wait",
    "lock.kick": "kvm_kick_cpu",
}
FLUSHES = {"mmu.flush_tlb_multi": "kvm_flush_tlb_multi", "mmu.tlb_remove_table": "tlb_remove_table"}
ALWAYS = {
    "cpu.io_delay": "kvm_io_delay",
    "lock.vcpu_is_preempted": "__raw_callee_save___kvm_vcpu_is_preempted",
}


def _fill(
    kernel: KernelFill | None, cpus: int, *, without: str = "", layout: str = "6.1-64"
) -> Mapping[str, str | int | None]:
    symbols = {name: number for number, name in enumerate(SYMBOLS) if name != without}
    assert kernel is not None
    return kernel.slots(cast("KernelImage", SimpleNamespace(symbols=symbols)), LAYOUTS[layout], cpus)


@pytest.mark.parametrize("layout", ["6.1-64", "6.1-32"])
def test_one_cpu_waits_for_nobody(backends: Mapping[str, Backend], layout: str) -> None:
    assert _fill(backends["kvm"].kernel, 1, layout=layout) == ALWAYS


def test_a_kernel_of_today_has_fewer_ops(backends: Mapping[str, Backend]) -> None:
    gone = {"cpu.io_delay", "mmu.tlb_remove_table"}
    everything = ALWAYS | FLUSHES | LOCKS
    assert _fill(backends["kvm"].kernel, 2, layout="6.12-64") == everything
    left = {path: target for path, target in everything.items() if path not in gone}
    assert _fill(backends["kvm"].kernel, 2, layout="7.2-64") == left


@pytest.mark.parametrize("cpus", [2, 3, 8192])
def test_several_cpus_sleep_and_flush_through_the_host(backends: Mapping[str, Backend], cpus: int) -> None:
    assert _fill(backends["kvm"].kernel, cpus) == ALWAYS | FLUSHES | LOCKS


@pytest.mark.parametrize(
    ("missing", "left_out"),
    [
        ("kvm_io_delay", {"cpu.io_delay"}),
        ("kvm_wait", set(LOCKS)),
        ("kvm_flush_tlb_multi", set(FLUSHES)),
        ("__raw_callee_save___kvm_vcpu_is_preempted", {"lock.vcpu_is_preempted"}),
    ],
)
def test_what_the_kernel_was_built_without_stays_native(
    backends: Mapping[str, Backend], missing: str, left_out: set[str]
) -> None:
    everything = ALWAYS | FLUSHES | LOCKS
    assert set(_fill(backends["kvm"].kernel, 2, without=missing)) == set(everything) - left_out


def test_the_host_decides_what_is_replaced(backends: Mapping[str, Backend]) -> None:
    usual: Any = backends["kvm"].kernel
    feature = type(usual.host)

    def with_host(host: enum.Flag) -> set[str]:
        return set(_fill(type(usual)(host), 2))

    assert with_host(feature.NONE) == set()
    assert with_host(usual.host | feature.REALTIME) == set(ALWAYS)
    assert with_host(usual.host | feature.MWAIT) == set(ALWAYS | LOCKS)
    assert with_host(usual.host & ~feature.STEAL_TIME) == {"cpu.io_delay", *LOCKS}
    assert with_host(usual.host & ~feature.PV_UNHALT) == set(ALWAYS | FLUSHES)


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_real_kernel_differs_from_bare_metal_where_kvm_code_says_so(
    backends: Mapping[str, Backend], kernel: KernelImage, cpus: int
) -> None:
    image = read_kernel(kernel)

    def final(name: str) -> dict[int, bytes]:
        links = chain(backends[name], backends)
        fills = [link.kernel for link in reversed(links) if link.kernel]
        return {planned.site.address: planned.final for planned in plan_kernel(image, fills, cpus).sites}

    native, kvm = final("native"), final("kvm")
    ops = {site.address: image.layout.by_type(site.type).path for site in image.sites}
    changed = {ops[address] for address, code in kvm.items() if code != native[address]}
    assert changed == set(ALWAYS) | (set(FLUSHES) | set(LOCKS) if cpus > 1 else set())


def test_a_real_kernel_finds_kvm_and_patches_itself_as_planned(kernel: KernelImage, tmp_path: Path) -> None:
    """It is told nothing but what cpuid says; what it makes of its own text is what ``pvops patch`` says."""
    document = tmp_path / "boot.json"
    words = ["--cmdline", "console=ttyS0 nokaslr", "--stop-at", "patched", "--verify-patching", "--json", str(document)]
    folder = [] if "kvm" in load_backends().backends else ["--plugin", str(Path(__file__).parents[1])]
    assert main(["boot", kernel.path, "--backend", "kvm", *words, *folder]) == 0
    found = json.loads(document.read_text())
    assert "Hypervisor detected: KVM" in found["console"]
    assert "kvm-clock: Using msrs 4b564d01 and 4b564d00" in found["console"]
    patching = found["inside"]["patching"]
    assert patching["equal"]
    assert patching["steps"] == {"paravirt": 0, "final": 0}
    assert patching["sites"] > 3000
