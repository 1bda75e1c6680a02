"""The frame table of a domain that runs Debian's kernel: right at every point of its boot, and after random calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pvops_xen import backend
from pvops_xen.hypervisor.memory import audit
from pvops_xen.testing.mutation import MutationRun

from pvops_core.guests import read_kernel
from pvops_core.session import Session

POINTS = ("about to get started", "Freeing unused kernel image", "Run /init", "guest-init: sum 20100")


@pytest.fixture(scope="module")
def booting(kernel_path: Callable[[str], Path]) -> Iterator[Session]:
    """The cloud kernel at its entry."""
    path = kernel_path("vmlinuz-6.1.0-56-cloud-amd64")
    initrd = path.with_name("initramfs.cpio.gz")
    if not initrd.is_file():
        pytest.skip(f"no {initrd.name} beside the kernel")
    kernel = read_kernel(path, initrd, "console=hvc0 earlyprintk=xen nr_cpus=1")
    with Session(kernel, (backend,), memory=128 << 20) as session:
        yield session


@pytest.mark.kernel
@pytest.mark.slow
def test_the_table_is_right_and_stays_right(booting: Session) -> None:
    hv = booting.platform.hv  # type: ignore[attr-defined]
    assert audit.audit(hv) == []
    for point in POINTS:
        booting.platform.until = point.encode()
        assert booting.run(max_seconds=300).reason == "until"
        assert audit.audit(hv) == []
    cpu = booting.machine.vcpus[0]
    assert MutationRun(hv, cpu, seed=0, stretch=100).make(1000) == 1000
    booting.platform.until = b""
    assert booting.run(max_seconds=300).reason == "poweroff"
    assert audit.audit(hv) == []


@pytest.mark.kernel
@pytest.mark.slow
def test_processes_of_32_bits_run_on_a_64_bit_kernel(kernel_path: Callable[[str], Path]) -> None:
    """They enter their kernel by sysenter and int 0x80, and find their storage by a selector in GS."""
    path = kernel_path("vmlinuz-6.1.0-56-cloud-amd64")
    initrd = path.with_name("initramfs-i386.cpio.gz")
    if not initrd.is_file():
        pytest.skip(f"no {initrd.name} beside the kernel")
    kernel = read_kernel(path, initrd, "console=hvc0 nr_cpus=1")
    with Session(kernel, (backend,), memory=128 << 20) as session:
        assert session.run(max_seconds=300).reason == "poweroff"
        lines = session.platform.console.decode().replace("\r", "").splitlines()
        assert {"guest-init: hypervisor xen", "guest-init: sum 20100", "guest-init: done"} <= set(lines)
        assert session.platform.traps["sysenter"]
        assert audit.audit(session.platform.hv) == []  # type: ignore[attr-defined]
