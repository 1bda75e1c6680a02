"""What a running kernel made of a module that its init loads, beside what was worked out of the module's file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pvops_native.kernel import NativeKernel
from pvops_xen.kernel import XenKernel

from pvops_core.backends import chain, load_backends
from pvops_core.guests import read_kernel as read_guest
from pvops_core.images import load_image
from pvops_core.images.module import link_module
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.session import Session
from pvops_core.testing.modules import SmallModule
from tests.session.kernels.ramdisk import archive

CLOUD_6_12, CLOUD_7_2 = "vmlinuz-6.12.117+deb12-cloud-amd64", "vmlinuz-7.2.13+deb14-cloud-amd64"
INIT = b"#!/bin/busybox sh\n/bin/busybox insmod /small.ko\n/bin/busybox poweroff -f\n"
FILLS = {"native": [NativeKernel()], "xen": [NativeKernel(), XenKernel()]}
CONSOLES = {"native": "console=ttyS0", "xen": "console=hvc0"}
INLINED = {"irq.irq_disable": "fa", "irq.irq_enable": "fb", "irq.save_fl": "9c58", "mmu.pte_val": "4889f8"}


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [(CLOUD_6_12, "native"), (CLOUD_6_12, "xen"), (CLOUD_7_2, "xen")])
def test_what_insmod_patched_is_what_was_planned(
    kernel_path: Callable[[str], Path], tmp_path: Path, name: str, backend: str
) -> None:
    """One site of every op: calls, nops and code that takes a call's place, at the address that the kernel chose."""
    path, initrd = kernel_path(name), tmp_path / "initrd"
    image = load_image(path)
    layout = read_kernel(image).layout
    inlined = {layout.by_path(op).type: bytes.fromhex(code) for op, code in INLINED.items()}
    module = SmallModule(layout, range(len(layout.slots)), inlined=inlined, loadable=image).build()
    given = path.with_name("initramfs.cpio.gz").read_bytes()
    initrd.write_bytes(given + bytes(-len(given) % 4) + archive("init", INIT) + archive("small.ko", module))
    backends = load_backends().backends
    guest = read_guest(str(path), str(initrd), CONSOLES[backend])
    with Session(guest, chain(backends[backend], backends), memory=256 << 20) as session:
        vcpu = session.run_to("do_init_module", max_seconds=900)
        loaded = session.struct("module", vcpu.get("rdi"))
        assert loaded.name == "small"
        text = int(loaded.mem[0].base)
        linked = link_module(module, image, addresses={".text": text})
        plan = plan_kernel(read_kernel(linked), FILLS[backend], 1)
        found = [vcpu.read_virtual(planned.site.address, planned.site.length) for planned in plan.sites]
    assert [planned.site.address for planned in plan.sites] == [
        text + 8 * number for number in range(len(layout.slots))
    ]
    assert [planned.final.hex() for planned in plan.sites] == [code.hex() for code in found]
    assert [planned.inlined for planned in plan.sites].count(True) == (len(INLINED) if backend == "native" else 0)
    assert {plan.kind(planned.site.type) for planned in plan.sites} >= {"call", "nop"}
