"""The generic kernel of Debian on bare metal and on Xen: both boots in one comparison, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main

GENERIC = "vmlinuz-6.1.0-56-amd64"


@pytest.fixture(scope="module")
def document(kernel_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of one comparison."""
    kernel = kernel_path(GENERIC)
    initrd = kernel.with_name("initramfs.cpio.gz")
    if not initrd.is_file():
        pytest.skip(f"no {initrd.name} beside the kernel")
    target = tmp_path_factory.mktemp("compare") / "compare.json"
    files = ("--kernel", str(kernel), "--initrd", str(initrd), "--json", str(target))
    main(["compare", *files, "--backends", "native,xen", "--max-seconds", "600"])
    result: dict[str, Any] = json.loads(target.read_text())
    return result


@pytest.mark.kernel
@pytest.mark.slow
def test_both_boot_to_user_space_and_power_off(document: dict[str, Any]) -> None:
    assert document["exit_code"] == 0
    for cell, hypervisor in zip(document["cells"], ("none", "xen"), strict=True):
        assert cell["outcome"] == "poweroff", cell["reason"]
        lines = cell["console"].replace("\r", "").splitlines()
        for line in (f"guest-init: hypervisor {hypervisor}", "guest-init: sum 20100", "guest-init: done"):
            assert line in lines
        for word in ("WARNING:", "BUG:", "Oops", "Call Trace", "multicall(s) failed"):
            assert word not in cell["console"]


@pytest.mark.kernel
@pytest.mark.slow
def test_the_text_of_both_differs_where_real_boots_of_them_did(document: dict[str, Any]) -> None:
    (boot,) = document["groups"][0]["boots"]
    assert (boot["sites"], boot["sites_differing"]) == (3848, 3762)
    alike = {op for op, of_op in boot["sites_by_op"].items() if of_op["differing"] == 0}
    lock = {"queued_spin_lock_slowpath", "queued_spin_unlock", "lock_wait", "lock_kick", "vcpu_is_preempted"}
    assert alike == lock
    native, xen = document["cells"]
    assert native["sites_note"] == xen["sites_note"] == "read at free_initmem"
    assert native["sites"] == {"inlined": 2323, "direct": 1440, "indirect": 0, "nop": 85}
    assert xen["sites"] == {"inlined": 48, "direct": 3794, "indirect": 0, "nop": 6}


@pytest.mark.kernel
@pytest.mark.slow
def test_each_phase_is_told_of(document: dict[str, Any]) -> None:
    for cell in document["cells"]:
        points = list(cell["points"].values())
        assert len(points) == 7
        for name in ("virtual_ns", "wall_s", "traps", "hypercalls", "page_table_updates", "ports"):
            amounts = [point[name] for point in points]
            assert amounts == sorted(amounts)
    native, xen = (cell["points"]["init"] for cell in document["cells"])
    assert native["hypercalls"] == 0 < xen["hypercalls"]
