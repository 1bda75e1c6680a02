"""The kernels that Debian ships boot to user space and power off, on bare metal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main
from pvops_core.images.cpio import Entry, archive

CLOUD, I386 = "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.1.0-50-686-pae"
CLOUD_6_12, CLOUD_7_2 = "vmlinuz-6.12.117+deb12-cloud-amd64", "vmlinuz-7.2.13+deb14-cloud-amd64"
KernelPath = Callable[[str], Path]


def repeatable(document: dict[str, Any]) -> dict[str, Any]:
    """All that one seed decides: everything but wall time."""
    points = {name: {**point, "wall_s": 0} for name, point in document["points"].items()}
    return document | {"wall_s": 0, "points": points}


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
@pytest.mark.parametrize(("name", "words"), [(CLOUD, ""), (CLOUD, " nopti"), (CLOUD, " notsc"), (I386, "")])
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
@pytest.mark.parametrize(("name", "cpus", "words"), [
    (CLOUD, 4, ""), (I386, 2, " nopti notsc"), (CLOUD_6_12, 2, ""), (CLOUD_7_2, 2, ""),
])  # fmt: skip
def test_all_processors_come_up(document: Callable[..., dict[str, Any]], name: str, cpus: int, words: str) -> None:
    words = f"console=ttyS0{words}"
    found = document(name, words, "--cpus", str(cpus), "--max-seconds", "600", "--verify-patching")
    assert found["outcome"] == "poweroff", found["reason"]
    assert found["inside"]["patching"]["equal"], found["inside"]["patching"]["differences"][:3]
    lines = found["console"].splitlines()
    assert found["vcpus_started"] == cpus
    for line in (f"guest-init: cpus {cpus}", "guest-init: sum 20100", "guest-init: done"):
        assert line in lines
    for word in ("WARNING:", "BUG:", "Oops", "Call Trace", "unchecked MSR"):
        assert word not in found["console"]


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(("cpus", "until"), [("1", "Spectre V1"), ("2", "Brought up 1 node, 2 CPUs")])
def test_one_seed_gives_one_boot(document: Callable[..., dict[str, Any]], cpus: str, until: str) -> None:
    words = ("--until", until, "--cpus", cpus)
    first, second = (document(CLOUD, "console=ttyS0 earlyprintk=ttyS0", *words) for _ in range(2))
    assert first["outcome"] == "until"
    assert repeatable(first) == repeatable(second)


INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
read -r line < /dev/ttyS0
/bin/busybox echo "guest-init: read $line" > /dev/console
/bin/busybox poweroff -f
"""


@pytest.mark.kernel
@pytest.mark.slow
def test_an_init_reads_a_line_that_is_typed(kernel_path: KernelPath, tmp_path: Path) -> None:
    kernel = kernel_path(CLOUD)
    initrd, typed, target = (tmp_path / name for name in ("initrd", "typed", "boot.json"))
    given = kernel.with_name("initramfs.cpio.gz").read_bytes()
    initrd.write_bytes(given + bytes(-len(given) % 4) + archive([Entry.file("init", INIT, 0o755)]))
    typed.write_text("Hello, 16550A\r")
    words = ("--cmdline", "console=ttyS0", "--input", str(typed), "--json", str(target))
    main(["boot", str(kernel), "--initrd", str(initrd), *words])
    found = json.loads(target.read_text())
    assert found["outcome"] == "poweroff", found["reason"]
    assert "ttyS0 at I/O 0x3f8 (irq = 4, base_baud = 115200) is a 16550A" in found["console"]
    assert "guest-init: read Hello, 16550A" in found["console"]
