"""Kernels from 6.12 on, whose call sites are ALTERNATIVEs: one boot each, with all that looks into a kernel."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pvops_native.kernel import NativeKernel
from pvops_xen.kernel import XenKernel

from pvops_core.backends import load_backends
from pvops_core.cli import main
from pvops_core.images import load_image
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.testing.booted import BootedKernel, Recipe

KERNELS = ("vmlinuz-6.12.117+deb12-cloud-amd64", "vmlinuz-7.2.13+deb14-cloud-amd64")
NATIVE = dict(zip(KERNELS, ("native_write_cr3", "pv_native_write_cr3"), strict=True))
CONSOLES = {"native": "console=ttyS0", "xen": "console=hvc0 earlyprintk=xen"}
POINTS = ["start_kernel", "alternatives", "patched", "free_initmem", "init", "power-off"]
PATCH = """
#include <livepatch.h>
struct seq_file;
int seq_write(struct seq_file *file, const void *data, unsigned long length);
int new_version_proc_show(struct seq_file *file, void *nothing) { return seq_write(file, "patched from C\\n", 15); }
"""
HOOK = """
def note(cpu, cr3, guest):
    task = guest.current(cpu)
    assert task.pid >= 0 and task.comm and task.active_mm.pgd
"""


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("backend", CONSOLES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_boot_is_traced_hooked_verified_and_live_patched_from_c(
    kernel_path: Callable[[str], Path], tmp_path: Path, name: str, backend: str
) -> None:
    kernel, payload, script, target = (
        kernel_path(name),
        *(tmp_path / each for each in ("new.livepatch", "script", "boot.json")),
    )
    (tmp_path / "new.c").write_text(PATCH)
    (tmp_path / "hooks.py").write_text(HOOK)
    script.write_text(f'when "Run /init" load {payload}\n')
    words = ["--kernel", str(kernel), "--function", "version_proc_show"]
    assert main(["livepatch", "build", str(tmp_path / "new.c"), "-o", str(payload), *words]) == 0
    files = ["--initrd", str(kernel.with_name("initramfs.cpio.gz")), "--json", str(target)]
    inside = ["--trace", "ops", "--verify-patching", "--hook", f"write_cr3={tmp_path}/hooks.py:note@init"]
    how = ["--backend", backend, "--cmdline", CONSOLES[backend], "--livepatch", str(script), "--max-seconds", "900"]
    assert main(["boot", str(kernel), *how, *files, *inside]) == 0
    found = json.loads(target.read_text())
    assert found["outcome"] == "poweroff", found["reason"]
    lines = found["console"].replace("\r", "").splitlines()
    assert "guest-init: version patched from C" in lines
    assert {"guest-init: cpus 1", "guest-init: sum 20100", "guest-init: done"} <= {*lines}
    for word in ("WARNING:", "BUG:", "Oops", "Call Trace", "unchecked MSR", "multicall(s) failed"):
        assert word not in found["console"]
    assert list(found["points"]) == POINTS
    looked = found["inside"]
    assert looked["patching"]["equal"], looked["patching"]["differences"][:3]
    assert looked["patching"]["steps"] == {"final": 0}
    (hook,) = looked["hooks"]
    assert hook["calls"] > 20
    assert hook["originals"] == [{"native": NATIVE[name], "xen": "xen_write_cr3"}[backend]]
    trace = looked["trace"]
    assert trace["ops"]["mmu.write_cr3"]["count"] >= hook["calls"]
    assert trace["ops"]["irq.irq_disable"]["count"] > 1000
    assert bool(trace["hypercalls"]) == (backend == "xen")


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("backend", CONSOLES)
@pytest.mark.parametrize("name", KERNELS)
def test_its_functions_and_ops_are_called_and_its_structures_read(
    kernel_path: Callable[[str], Path], name: str, backend: str
) -> None:
    image = load_image(kernel_path(name))
    with BootedKernel(Recipe(image.path, backend, vcpus=2), load_backends().backends) as kernel:
        banner = kernel.symbols["linux_banner"]
        length = len(kernel.session.read(banner, 512).split(b"\0")[0])
        assert kernel.call("strlen", banner).result == length
        entry = kernel.op("make_pgd", 0x2A10067)
        assert kernel.op("pgd_val", entry.result).result == 0x2A10067
        seen: list[str] = []
        hook = kernel.hook("load_tls", lambda cpu, guest: seen.append(guest.current(cpu).comm))
        kernel.call("msleep", 5, interrupts=True)
        assert hook.calls == len(seen) >= 2
        assert "swapper/0" in seen
        kernel.session.hooks.remove(hook)
        first = kernel.struct("task_struct", "init_task")
        assert (first.comm, first.pid, first.mm) == ("swapper/0", 0, 0)
        assert kernel.struct("mm_struct", "init_mm").pgd == kernel.symbols["init_top_pgt"]
        tasks = list(kernel.session.structures.entries(first.tasks, "task_struct", "tasks"))
        assert {"kthreadd"} <= {task.comm for task in tasks}
        assert {task.real_parent.pid for task in tasks} == {0, 2}
        assert [kernel.per_cpu("runqueues", cpu).idle.comm for cpu in (0, 1)] == ["swapper/0", "swapper/1"]
        assert '\t.comm = "swapper/0",' in str(first)


@pytest.mark.kernel
@pytest.mark.slow
def test_a_comparison_finds_the_sites_that_differ_as_both_plans_say(
    kernel_path: Callable[[str], Path], tmp_path: Path
) -> None:
    kernel, target = kernel_path(KERNELS[1]), tmp_path / "compare.json"
    files = ["--kernel", str(kernel), "--initrd", str(kernel.with_name("initramfs.cpio.gz")), "--json", str(target)]
    assert main(["compare", *files, "--backends", "native,xen", "--max-seconds", "900"]) == 0
    document = json.loads(target.read_text())
    assert [cell["outcome"] for cell in document["cells"]] == ["poweroff", "poweroff"]
    read = read_kernel(load_image(kernel))
    native, xen = (plan_kernel(read, fills, 1) for fills in ([NativeKernel()], [NativeKernel(), XenKernel()]))
    differing = Counter(
        read.layout.slots[one.site.type].op.name
        for one, other in zip(native.sites, xen.sites, strict=True)
        if one.final != other.final
    )
    (boot,) = document["groups"][0]["boots"]
    assert (boot["sites"], boot["sites_differing"]) == (len(read.sites), differing.total())
    assert {op: of_op["differing"] for op, of_op in boot["sites_by_op"].items() if of_op["differing"]} == differing
    assert {cell["sites_note"] for cell in document["cells"]} == {"read at free_initmem"}
