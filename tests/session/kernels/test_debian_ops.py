"""The kernels that Debian ships, served by a backend's own hooks from their first instruction to power-off."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.memory import audit
from pvops_xen.platform import XenPlatform

from pvops_core.backends import Backend, chain
from pvops_core.guests import Kernel, read_kernel
from pvops_core.hookspecs import hookimpl
from pvops_core.session import Session
from pvops_core.switchboard import KERNEL

if TYPE_CHECKING:
    from pvops_core.guest import Guest
    from pvops_core.machine import Vcpu

CLOUD, CLOUD_6_12 = "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.12.117+deb12-cloud-amd64"
CLOUD_7_2 = "vmlinuz-7.2.13+deb14-cloud-amd64"
CONSOLES = {"native": "ttyS0", "xen": "hvc0", "mine": "ttyS0"}
TIMES = re.compile(r"\d+\.\d+|Marking stable .*|lpj=\d+|(?<=cycles: )\w+|(?<=idle_ns: )\d+")
LEFT = {
    "native": {"tlb_remove_table", "flush_tlb_multi", "queued_spin_lock_slowpath"},
    "xen": {"tlb_remove_table", "exit_mmap", "pgd_alloc", "pgd_free"},
}
"""Ops that leave calls to the kernel's own function."""

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
Booting = Callable[..., Session]


@pytest.fixture
def booting(
    kernel_path: Callable[[str], Path], backends: dict[str, Backend], request: pytest.FixtureRequest
) -> Booting:
    """A session of a kernel by name on a backend, or on one of a test's own over bare metal."""

    def session(name: str, backend: str | Backend, vcpus: int = 1) -> Session:
        path = kernel_path(name)
        initrd = path.with_name("initramfs.cpio.gz")
        if not initrd.is_file():
            pytest.skip(f"no {initrd.name} beside the kernel")
        links = chain(backends[backend], backends) if isinstance(backend, str) else (backend, backends["native"])
        kernel: Kernel = read_kernel(path, initrd, f"console={CONSOLES[links[0].name]}")
        made = Session(kernel, links, memory=256 << 20, vcpus=vcpus)
        request.addfinalizer(made.close)
        return made

    return session


def lines(session: Session) -> list[str]:
    """The console without times; the kernel's messages and what init prints may change places."""
    return sorted(TIMES.sub("T", line) for line in session.platform.console.decode().replace("\r", "").splitlines())


def allocated(kernel: Guest) -> dict[int, bytes]:
    """Zeros at the constants of a kernel's text that it fills in as it boots: addresses of what it has allocated."""
    found = {}
    for name, start in kernel.symbols.items():
        if name.startswith("__start_runtime_ptr_"):
            places = kernel.image.read(start, kernel.symbols[name.replace("start", "stop", 1)] - start)
            distances = struct.unpack(f"<{len(places) // 4}i", places)
            found |= {start + 4 * number + distance: bytes(8) for number, distance in enumerate(distances)}
    return found


@pytest.mark.parametrize("backend", ["native", "xen"])
@pytest.mark.parametrize("name", [CLOUD, CLOUD_6_12, CLOUD_7_2])
def test_all_ops_in_python_come_to_the_same(booting: Booting, name: str, backend: str) -> None:
    plain, served = booting(name, backend), booting(name, backend)
    used = served.ops.use()
    assert {"irq.save_fl", "mmu.write_cr3", "mmu.set_pte", "lock.queued_spin_unlock"} <= set(used)
    for each in (plain, served):
        assert each.run(max_seconds=900).reason == "poweroff"
    assert lines(served) == lines(plain)
    unlike = allocated(plain.guest)
    assert served.text.sha256({**served.hooks.text_without(), **unlike}) == plain.text.sha256(unlike)
    if isinstance(served.platform, XenPlatform):
        assert audit.audit(served.platform.hv) == []
    calls = served.ops.calls
    assert calls.total() > 500_000
    assert {hook.op for hook in served.hooks.standing if hook.passed} <= LEFT[backend]


@pytest.mark.parametrize("name", [CLOUD, CLOUD_7_2])
def test_two_processors_are_served(booting: Booting, name: str) -> None:
    session = booting(name, "native", 2)
    session.ops.use()
    assert session.run(max_seconds=900).reason == "poweroff"
    assert session.processors.started == 2
    console = session.platform.console.decode()
    assert "guest-init: done" in console
    assert not re.search("WARNING:|BUG:|Oops|Call Trace", console)


def test_ops_come_and_go_while_the_kernel_runs(booting: Booting) -> None:
    session = booting(CLOUD, "native")
    session.run_to("free_initmem")
    for turn in range(6):
        session.ops.use("irq.*", "mmu.write_cr3", "mmu.p??_val") if turn % 2 else session.ops.use("mmu.*")
        session.run(max_ns=20_000_000)
        without = session.text.sha256(session.hooks.text_without())
        session.hooks.remove(*session.hooks.standing)
        assert session.text_sha256() == without
        assert session.ops.implementation("irq.save_fl").backend == KERNEL
    assert session.run(max_seconds=900).reason == "poweroff"


class Mine:
    """Three ops of a newcomer's."""

    calls = 0

    def __init__(self, _env: object) -> None:
        Mine.calls = 0

    @hookimpl
    def write_cr3(self, cpu: Vcpu, cr3: int) -> None:
        """As bare metal's."""
        Mine.calls += 1
        cpu.insn.mov_to_cr(3, cr3)

    @hookimpl
    def read_cr2(self, cpu: Vcpu) -> int:
        """As bare metal's."""
        Mine.calls += 1
        return cpu.insn.mov_from_cr(2)


def test_a_newcomer_s_hooks_are_called_as_often_as_the_guest_arrives(booting: Booting) -> None:
    session = booting(CLOUD, Backend(name="mine", api=2, base="native", ops=Mine))
    assert session.ops.use("write_cr3", "read_cr2") == ("mmu.read_cr2", "mmu.write_cr3")
    arrived: list[int] = []
    for hook in session.hooks.standing:
        session.machine.break_at(hook.entry, lambda cpu: arrived.append(cpu.index), acts=False)
    assert session.run(max_seconds=900).reason == "poweroff"
    assert Mine.calls == len(arrived) == session.ops.calls.total() > 1000
