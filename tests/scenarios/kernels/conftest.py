"""Kernels of the scenarios' days: built from their sources, in a folder that a variable names."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from pvops_core.backends import load_backends
from pvops_core.guests import Kernel, read_kernel
from pvops_core.machine import Stop
from pvops_core.scenarios.kernels.run import KernelRun
from pvops_core.scenarios.kernels.stage import KernelStage
from tests.session.selfpatching import SelfPatching

FOLDER, ELF = "PVOPS_OLD_KERNELS", b"\x7fELF"


@pytest.fixture
def old_stages() -> list[KernelStage]:
    """A stage with each kernel of the folder, and with KERNEL.cpio beside it for a ramdisk, where there is one."""
    folder = os.environ.get(FOLDER)
    if not folder:
        pytest.skip(f"{FOLDER} is not set: a folder of kernels of 2.6.23 to 4.9, built from their sources")
    kernels = [each for each in sorted(Path(folder).iterdir()) if each.is_file() and each.read_bytes()[:4] == ELF]
    backends = load_backends().backends
    return [KernelStage(backends, attrs.evolve(read_kernel(path), initrd=_initrd(path))) for path in kernels]


def _initrd(path: Path) -> bytes:
    beside = path.with_name(f"{path.name}.cpio")
    return beside.read_bytes() if beside.exists() else b""


@pytest.fixture
def small() -> Kernel:
    """A kernel of no age."""
    return Kernel(SelfPatching.of("mmu.write_cr3").build(body=(0,)))


@pytest.fixture
def small_stage(small: Kernel) -> KernelStage:
    """A stage with that."""
    return KernelStage(load_backends().backends, small)


@pytest.fixture
def died(small: Kernel) -> KernelRun:
    """A crash that leaves no trace of why."""
    return KernelRun(
        guest=small, backend="xen", cmdline="", stop=Stop("crash", "why"), done=False, console="", faults=(),
        events=(), history=(), rip=0, text=(), gates={}, messages=(), passed={}, sites=(),
    )  # fmt: skip
