"""gdb, with a file of symbols of a stripped kernel, finds the frames that ORC has: of calls, interrupts, faults."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import chain, load_backends
from pvops_core.guest.debugfile.symbolfile import symbol_file
from pvops_core.guest.stacks.orc import read_orc
from pvops_core.guest.stacks.unwind import Frame, walk
from pvops_core.guests import read_kernel
from pvops_core.session import Session
from tests.guest.debugfile.gdbcore import core, frames

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
_NAMES = (*(f"r{number}" for number in range(8, 16)), "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip")
_PAGE = 4096


class _Stack:
    """A vCPU's stack, and the pages of it that have been asked for."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.pages: dict[int, bytes] = {}
        self._virtual = vcpu.virtual

    def word(self, at: int) -> int:
        for page in {at & -_PAGE, at + 7 & -_PAGE} - self.pages.keys():
            self.pages[page] = self._virtual.read(page, _PAGE, system=True)
        return self._virtual.number(at, 8, system=True)


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gdb") is None, reason="needs gdb")
@pytest.mark.parametrize(
    ("name", "backend", "places"),
    [
        (CLOUD, "native", ("native_write_cr4", "schedule", "hrtimer_interrupt", "do_exit", "exc_page_fault")),
        (CLOUD, "xen", ("xen_write_cr3", "hrtimer_interrupt", "vfs_read", "handle_mm_fault", "xen_evtchn_do_upcall")),
        ("vmlinuz-6.12.117+deb12-cloud-amd64", "native", ("schedule", "hrtimer_interrupt", "vfs_read")),
        ("vmlinuz-7.2.13+deb14-cloud-amd64", "native", ("schedule", "handle_softirqs", "handle_mm_fault")),
    ],
)
def test_gdb_goes_up_as_the_kernel_does(
    name: str, backend: str, places: tuple[str, ...], kernel_path: Callable[[str], Path], tmp_path: Path
) -> None:
    path = kernel_path(name)
    ramdisk = path.with_name("initramfs.cpio.gz")
    if not ramdisk.is_file():
        pytest.skip(f"no {ramdisk.name} beside the kernel")
    kernel = read_kernel(path, ramdisk, f"console={'hvc0' if backend == 'xen' else 'ttyS0'} quiet")
    made, orc = symbol_file(kernel.image), read_orc(kernel.image)
    assert made is not None
    assert orc is not None
    (tmp_path / "symbols").write_bytes(made.data)
    backends = load_backends().backends
    with Session(kernel, chain(backends[backend], backends), vcpus=1) as session:
        for place in places:
            vcpu = session.run_to(place, max_seconds=300)
            stack = _Stack(vcpu)
            registers = {each: vcpu.get(each) for each in _NAMES}
            frame = Frame(vcpu.rip, vcpu.rsp, vcpu.get("rbp"), exact=True)
            walked = walk(orc, frame, stack.word, lambda _address: False)
            assert not walked.lost
            (tmp_path / "core").write_bytes(core({**registers, "cs": 0x10, "ss": 0x18}, stack.pages))
            found = frames(tmp_path / "symbols", tmp_path / "core")
            # What was interrupted in user mode gdb shows as one frame more.
            assert tuple(at for at, _ in found)[: len(walked.places)] == walked.places
            assert [at >> 63 for at, _ in found[len(walked.places) :]] in ([], [0])
            assert found[0][1] == place
