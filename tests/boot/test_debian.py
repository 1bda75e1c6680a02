"""The kernels that Debian ships boot to user space and power off, on bare metal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main

CLOUD, I386 = "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.1.0-50-686-pae"
KernelPath = Callable[[str], Path]


@pytest.fixture
def document(kernel_path: KernelPath, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Boots a kernel by name with the ramdisk for its width; the document of ``pvops boot``."""

    def run(name: str, cmdline: str, *options: str) -> dict[str, Any]:
        kernel = kernel_path(name)
        initrd = kernel.with_name("initramfs-i386.cpio.gz" if name == I386 else "initramfs.cpio.gz")
        if not initrd.is_file():
            pytest.skip(f"no {initrd.name} beside the kernel")
        target = tmp_path / "boot.json"
        main(["boot", str(kernel), "--initrd", str(initrd), "--cmdline", cmdline, "--json", str(target), *options])
        result: dict[str, Any] = json.loads(target.read_text())
        return result

    return run


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"), [(CLOUD, ""), (CLOUD, " nopti"), (CLOUD, " notsc"), (I386, ""), (I386, " nopti notsc")]
)
def test_a_kernel_boots_to_user_space_and_powers_off(
    document: Callable[..., dict[str, Any]], name: str, words: str
) -> None:
    found = document(name, f"console=ttyS0{words}", "--verify-patching")
    assert found["outcome"] == "poweroff", found["reason"]
    patching = found["inside"]["patching"]
    assert patching["equal"], patching["differences"][:3]
    if name == CLOUD and os.environ.get("PVOPS_ORACLE"):
        assert patching["record"]
    lines = found["console"].splitlines()
    assert "guest-init: sum 20100" in lines
    assert "guest-init: done" in lines
    for word in ("WARNING:", "BUG:", "Oops", "Call Trace"):
        assert word not in found["console"]
    assert not found["counts"]["ops"]  # bare metal's are inlined: nothing asks us


@pytest.mark.kernel
@pytest.mark.slow
def test_one_seed_gives_one_boot(document: Callable[..., dict[str, Any]]) -> None:
    first, second = (document(CLOUD, "console=ttyS0 earlyprintk=ttyS0", "--until", "Spectre V1") for _ in range(2))
    assert first["outcome"] == "until"
    del first["wall_s"], second["wall_s"]
    assert first == second
