"""The kernels that Debian ships boot to user space and power off as domains of the Xen model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main

CLOUD, GENERIC = "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.1.0-56-amd64"
GENERIC_6_12, CLOUD_6_12 = "vmlinuz-6.12.117+deb12-amd64", "vmlinuz-6.12.117+deb12-cloud-amd64"
CLOUD_7_2 = "vmlinuz-7.2.13+deb14-cloud-amd64"
POINTS = ["start_kernel", "alternatives", "paravirt", "patched", "free_initmem", "init", "power-off"]
CONSOLE = "console=hvc0 earlyprintk=xen"
Document = Callable[..., dict[str, Any]]


def repeatable(document: dict[str, Any]) -> dict[str, Any]:
    """All that one seed decides: everything but wall time."""
    points = {name: {**point, "wall_s": 0} for name, point in document["points"].items()}
    return document | {"wall_s": 0, "points": points}


@pytest.fixture
def document(kernel_path: Callable[[str], Path], tmp_path: Path) -> Document:
    """Boots a kernel by name with the ramdisk beside it; the document of ``pvops boot``."""

    def run(name: str, cmdline: str, *options: str) -> dict[str, Any]:
        kernel = kernel_path(name)
        initrd = kernel.with_name("initramfs.cpio.gz")
        if not initrd.is_file():
            pytest.skip(f"no {initrd.name} beside the kernel")
        target = tmp_path / "boot.json"
        files = ("--initrd", str(initrd), "--json", str(target))
        main(["boot", str(kernel), "--backend", "xen", "--cmdline", cmdline, *files, *options])
        result: dict[str, Any] = json.loads(target.read_text())
        return result

    return run


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(("name", "words", "cpus"), [(CLOUD, " nr_cpus=1", 1), (CLOUD, "", 1), (CLOUD, "", 2)])
def test_a_kernel_boots_to_user_space_and_powers_off(document: Document, name: str, words: str, cpus: int) -> None:
    found = document(name, CONSOLE + words, "--cpus", str(cpus), "--max-seconds", "600", "--verify-patching")
    assert found["outcome"] == "poweroff", found["reason"]
    patching = found["inside"]["patching"]
    assert patching["equal"], patching["differences"][:3]
    assert patching["steps"] == {"paravirt": 0, "final": 0}
    assert list(found["points"]) == POINTS
    assert found["vcpus_started"] == cpus
    lines = found["console"].replace("\r", "").splitlines()
    for line in ("guest-init: hypervisor xen", f"guest-init: cpus {cpus}", "guest-init: sum 20100", "guest-init: done"):
        assert line in lines
    for word in ("WARNING:", "BUG:", "Oops", "Call Trace", "multicall(s) failed"):
        assert word not in found["console"]


@pytest.mark.kernel
@pytest.mark.slow
def test_one_seed_gives_one_boot_and_another_its_like(document: Document) -> None:
    words = (f"{CONSOLE} nr_cpus=1", "--until", "Run /init", "--max-seconds", "600", "--seed")
    first, second, other = (document(CLOUD, *words, seed) for seed in ("0", "0", "1"))
    assert first["outcome"] == "until"
    assert repeatable(first) == repeatable(second)
    assert other["outcome"] == "until"


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cpus", "recorded"),
    [(GENERIC, 1, True), (GENERIC_6_12, 1, True), (CLOUD_6_12, 2, False), (CLOUD_7_2, 2, False)],
)
def test_a_kernel_patches_itself_as_predicted_and_as_a_recorded_boot_did(
    document: Document, name: str, cpus: int, *, recorded: bool
) -> None:
    words = ("--cpus", str(cpus), "--stop-at", "patched", "--max-seconds", "600", "--verify-patching")
    patching = document(name, CONSOLE, *words)["inside"]["patching"]
    assert patching["equal"], patching["differences"][:3]
    if os.environ.get("PVOPS_ORACLE"):
        assert bool(patching["record"]) == recorded
