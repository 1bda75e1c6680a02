"""What a running kernel made of a module that its init loads, beside what was worked out of the module's file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pvops_native.kernel import NativeKernel
from pvops_xen.kernel import XenKernel

from pvops_core.backends import chain, load_backends
from pvops_core.guests import read_kernel as read_guest
from pvops_core.images import KernelImage, load_image
from pvops_core.images.cpio import Entry, archive
from pvops_core.images.module import link_module
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.session import Session
from pvops_core.testing.modules import SmallModule

if TYPE_CHECKING:
    from pvops_core.switchboard.kernel.ophook import OpHook

CLOUD_6_1 = "vmlinuz-6.1.0-56-cloud-amd64"
CLOUD_6_12, CLOUD_7_2 = "vmlinuz-6.12.117+deb12-cloud-amd64", "vmlinuz-7.2.13+deb14-cloud-amd64"
AGAIN = b"""#!/bin/busybox sh
/bin/busybox insmod /small.ko
/bin/busybox rmmod small
/bin/busybox insmod /small.ko
while :; do :; done
"""
INIT = b"#!/bin/busybox sh\n/bin/busybox insmod /small.ko\n/bin/busybox poweroff -f\n"
FILLS = {"native": [NativeKernel()], "xen": [NativeKernel(), XenKernel()]}
CONSOLES = {"native": "console=ttyS0", "xen": "console=hvc0"}
INLINED = {"irq.irq_disable": "fa", "irq.irq_enable": "fb", "irq.save_fl": "9c58", "mmu.pte_val": "4889f8"}


def small(image: KernelImage) -> bytes:
    """A module with one site of every op, some of them inlined on bare metal."""
    layout = read_kernel(image).layout
    inlined = {layout.by_path(op).type: bytes.fromhex(code) for op, code in INLINED.items()}
    return SmallModule(layout, range(len(layout.slots)), inlined=inlined, loadable=image).build()


def loading(path: Path, initrd: Path, backend: str, init: bytes, module: bytes) -> Session:
    """A kernel whose init is that, beside the module."""
    given = path.with_name("initramfs.cpio.gz").read_bytes()
    initrd.write_bytes(
        given + bytes(-len(given) % 4) + archive([Entry.file("init", init, 0o755), Entry.file("small.ko", module)])
    )
    backends = load_backends().backends
    guest = read_guest(str(path), str(initrd), CONSOLES[backend])
    return Session(guest, chain(backends[backend], backends), memory=256 << 20)


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [(CLOUD_6_12, "native"), (CLOUD_6_12, "xen"), (CLOUD_7_2, "xen")])
def test_what_insmod_patched_is_what_was_planned(
    kernel_path: Callable[[str], Path], tmp_path: Path, name: str, backend: str
) -> None:
    """One site of every op: calls, nops and code that takes a call's place, at the address that the kernel chose."""
    image = load_image(kernel_path(name))
    layout = read_kernel(image).layout
    module = small(image)
    with loading(kernel_path(name), tmp_path / "initrd", backend, INIT, module) as session:
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


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"), [(CLOUD_6_1, "native"), (CLOUD_6_1, "xen"), (CLOUD_6_12, "native"), (CLOUD_7_2, "native")]
)
def test_hooks_are_called_from_a_module_whenever_it_was_loaded(
    kernel_path: Callable[[str], Path], tmp_path: Path, name: str, backend: str
) -> None:
    """Hooks that come after a module, before it, and while it is loaded; gone, its sites are what the kernel made."""
    image = load_image(kernel_path(name))
    with loading(kernel_path(name), tmp_path / "initrd", backend, AGAIN, small(image)) as session:
        first = Loaded(session)
        session.run_to("do_exit", max_seconds=900)
        after = session.hooks.install("save_fl", lambda _cpu: None)
        assert first.sites["save_fl"] in after.kept
        assert first.reach(after)

        session.run_to("free_module", max_seconds=900)
        second = Loaded(session)
        meanwhile = session.hooks.install("pte_val", lambda _cpu: None)
        session.run_to("do_exit", max_seconds=900)
        assert second.reach(after)
        assert second.reach(meanwhile)
        assert {second.now(op) for op in ("save_fl", "pte_val")} == {"call *slot"}
        assert (after.spread, meanwhile.spread) == (False, False)

        session.hooks.remove(after, meanwhile)
        assert {op: second.now(op) for op in second.sites} == first.made
        assert session.run(max_ns=20_000_000).reason == "timeout"


class Loaded:
    """A module whose text has been patched and that is about to begin.

    Attributes:
        sites: where the sites of some ops are.
        made: what the kernel has made of them.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        vcpu = session.run_to("do_init_module", max_seconds=900)
        module = session.struct("module", vcpu.get("rdi"))
        text = int(module.core_layout.base if "core_layout" in module else module.mem[0].base)
        layout = session.known_table.layout
        self.sites = {op: text + 8 * layout.by_op(op).type for op in ("save_fl", "irq_disable", "pte_val", "read_cr2")}
        self.made = {op: self.now(op) for op in self.sites}

    def now(self, op: str) -> str:
        """What a site is now; the targets of calls and the addresses of slots count from the site."""
        code = self.session.space.read(self.sites[op], 6)
        told = {b"\xff\x15": "call *slot", b"\xe8": "call"}
        return next((what for start, what in told.items() if code.startswith(start)), code.hex())

    def reach(self, hook: OpHook) -> bool:
        """Whether a call of its op's site comes to a hook."""
        session, before = self.session, hook.calls
        session.calls.plain(session.machine.vcpus[0], session.calls.function(self.sites[hook.op]))
        return hook.calls > before
