"""GDB itself, as Debian has it, at the built-in guest and at a kernel that Debian ships."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.patching.kernel import read_kernel

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

PVOPS = (sys.executable, "-m", "pvops_core")
CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
SECONDS = 300


@pytest.fixture(scope="module")
def gdb() -> str:
    found = shutil.which("gdb")
    if found is None:
        if os.environ.get("PVOPS_REQUIRE_KERNELS"):
            pytest.fail("no gdb here, and PVOPS_REQUIRE_KERNELS is set: install Debian's package of that name")
        pytest.skip("no gdb here: install Debian's package of that name")
    return found


@contextmanager
def debugged(*command: str) -> Iterator[str]:
    """A run of a verb that waits for a debugger; gives the place to go to, and sees the run's end."""
    words = [*PVOPS, *command, "--gdb", "0", "--wait"]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stderr is not None
            told = next(line for line in run.stderr if "target remote" in line)
            yield told.rpartition("remote ")[2].strip().rstrip("'")
            run.wait(SECONDS)
        finally:
            run.kill()


def visit(gdb: str, place: str, *commands: str) -> str:
    """What gdb says to these commands in batch mode."""
    setup = ("set confirm off", "set pagination off", f"target remote {place}")
    words = [word for each in (*setup, *commands) for word in ("-ex", each)]
    done = subprocess.run(
        [gdb, "-nx", "-batch", *words],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def undisturbed(*command: str, target: Path) -> dict[str, Any]:
    subprocess.run(
        [*PVOPS, *command, "--json", str(target)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )
    return document(target)


@pytest.mark.parametrize("layout", ["6.1-64", "2.6.24-pae"])
def test_the_built_in_guest(gdb: str, tmp_path: Path, layout: str) -> None:
    command = ("run", "--cpus", "2", "--layout", layout)
    plain = undisturbed(*command, target=tmp_path / "plain.json")
    target = tmp_path / "debugged.json"
    with debugged(*command, "--json", str(target)) as place:
        said = visit(
            gdb,
            place,
            "info threads",
            "info registers",
            "print $cr0",
            "print $xmm0",
            "x/3i $pc",
            "stepi 20",
            "hbreak *$pc",
            "continue",
            "thread 2",
            "monitor ops write_cr3",
            "detach",
        )
    assert "warning: " not in said.replace("warning: No executable", "")
    assert re.search(r"\* 1 +Thread 1 \"vCPU 0\" \(level 0\)", said)
    for register in ("cr3", "efer", "fs_base"):
        assert re.search(rf"^{register} +0x", said, re.MULTILINE)
    assert "[ PE " in said
    assert "native.write_cr3" in said
    after = document(target)
    for same in ("outcome", "event_log_sha256", "virtual_ns", "text_sha256", "instructions"):
        assert after[same] == plain[same]


def slot(image: KernelImage, path: str) -> int:
    kernel = read_kernel(image)
    return kernel.slot_addresses[kernel.layout.by_path(path).type]


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "xen"])
def test_a_kernel_ends_as_if_nobody_had_looked(
    gdb: str,
    kernels: Callable[[str], KernelImage],
    kernel_path: Callable[[str], Path],
    tmp_path: Path,
    backend: str,
) -> None:
    """A slot of pv_ops watched, a break at write_cr3, 1,000 steps, a break on the second vCPU, steps of both."""
    image = kernels(CLOUD)
    cr3, second = {
        "native": ("native_write_cr3", "start_secondary"),
        "xen": ("xen_write_cr3", "cpu_bringup_and_idle"),
    }[backend]
    watched = slot(image, "mmu.write_cr3") if backend == "xen" else image.symbols["system_state"]
    command = ("boot", str(kernel_path(CLOUD)), "--backend", backend, "--cpus", "2", "--until", "Brought up 1 node")
    command += ("--cmdline", "console=ttyS0 earlyprintk=serial" if backend == "native" else "console=hvc0")
    plain = undisturbed(*command, target=tmp_path / "plain.json")
    target, symbols = tmp_path / "debugged.json", tmp_path / "symbols"
    subprocess.run([*PVOPS, "symbols", str(kernel_path(CLOUD)), "-o", str(symbols)], check=True)
    watch = (f"watch *(unsigned {'long' if backend == 'xen' else 'int'} *){watched:#x}", "continue", "monitor where")
    with debugged(*command, "--json", str(target)) as place:
        said = visit(
            gdb,
            place,
            f"symbol-file {symbols}",
            *(watch if backend == "xen" else ()),
            *(("continue", "monitor where", "delete") if backend == "xen" else ()),
            f"hbreak {cr3}",
            "continue",
            "backtrace",
            "delete",
            "stepi 1000",
            *(watch if backend == "native" else ()),
            "delete",
            f"break {second}",
            "continue",
            "info threads",
            "stepi 50",
            "thread 1",
            "stepi 50",
            "detach",
        )
    writers = ("xen_init_mmu_ops", "xen_pagetable_init") if backend == "xen" else ("rest_init",)
    for writer in writers:
        assert f"vcpu 0 at {writer}+" in said
    assert f"{image.symbols[cr3]:#018x} in {cr3} ()" in said
    start = "start_kernel" if backend == "xen" else "x86_64_start_kernel"
    assert re.search(rf"#0 .* in {cr3} .*\n(?:#\d.*\n)*#\d .* in {start} ", said)
    assert re.search(rf"\* 2 +Thread 2 .* in {second} ", said)
    assert "detached" in said
    after = document(target)
    for same in ("outcome", "event_log_sha256", "virtual_ns", "text_sha256", "console"):
        assert after[same] == plain[same]
