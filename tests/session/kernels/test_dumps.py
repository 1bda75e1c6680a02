"""drgn opens dumps of Debian's kernels: tasks, log and addresses.

Debian's debug information is a package of a gigabyte, so types come from the kernel's own type information (BTF).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import access_remote_vm, follow_phys
from drgn.helpers.linux.pid import find_task, for_each_task
from drgn.helpers.linux.printk import get_dmesg

from pvops_core.backends import chain, load_backends
from pvops_core.dumps.drgntypes import open_dump
from pvops_core.guests import read_kernel
from pvops_core.session import Session

if TYPE_CHECKING:
    from drgn import Program

    from pvops_core.machine import Vcpu

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
STACK_END_MAGIC = (0x57AC6E9D).to_bytes(8, "little")
CONSOLES = {"native": "console=ttyS0", "xen": "console=hvc0"}


@pytest.fixture(scope="module", params=CONSOLES)
def session(request: pytest.FixtureRequest, kernel_path: Callable[[str], Path]) -> Iterator[Session]:
    kernel, backends = kernel_path(CLOUD), load_backends().backends
    initrd = kernel.with_name("initramfs.cpio.gz")
    if not initrd.is_file():
        pytest.skip(f"no {initrd.name} beside the kernel")
    guest = read_kernel(kernel, initrd, CONSOLES[request.param])
    with Session(guest, chain(backends[request.param], backends), memory=256 << 20, vcpus=2) as made:
        yield made


@pytest.mark.kernel
@pytest.mark.slow
def test_drgn_reads_a_dump(session: Session, tmp_path: Path) -> None:
    """Of a process in the midst of its work: one dump tells of kernel and user space."""
    session.run_to("start_kernel")
    assert not session.dump(tmp_path / "early").own_info
    image, banner = session.guest.image, session.guest.symbols["linux_banner"]
    prog = open_dump(tmp_path / "early", image)
    assert prog["linux_banner"].address_ == banner
    assert prog.read(banner, 14) == b"Linux version "

    session.run_to("init")
    vcpu = session.run_to("__x64_sys_reboot")
    assert session.dump(tmp_path / "core").own_info
    prog = open_dump(tmp_path / "core", image)
    assert prog["UTS_RELEASE"].string_().decode() == image.release

    tasks = {task.pid.value_(): task.comm.string_().decode() for task in for_each_task(prog)}
    listed = list_for_each_entry("struct task_struct", prog["init_task"].tasks.address_of_(), "tasks")
    assert tasks[1] == "init"
    assert tasks[2] == "kthreadd"
    assert prog["init_task"].comm.string_() == b"swapper/0"
    assert {task.pid.value_() for task in listed} <= tasks.keys()

    log = get_dmesg(prog).decode()
    assert log.startswith(f"[    0.000000] Linux version {image.release} ")
    assert "Run /init as init process" in log

    _check_tables(prog, session, vcpu)


def _check_tables(prog: Program, session: Session, vcpu: Vcpu) -> None:
    """Addresses by the tables in the dump: those that no program header has."""
    banner = session.guest.symbols["linux_banner"]
    assert prog.symbol(vcpu.rip).name == "__x64_sys_reboot"
    assert follow_phys(prog["init_mm"].address_of_(), banner).value_() == session.kernel.physical(banner)
    task = find_task(prog, int(session.structures.current(vcpu).pid))
    stack = task.stack.value_()
    # A stack is in the vmalloc area, which no header shows; STACK_END_MAGIC (uapi/linux/magic.h) is its lowest word.
    assert prog.read(stack, 8) == STACK_END_MAGIC == session.space.read(stack, 8)
    # The process's own memory, by its own tables: what it was started by.
    words, start = b"/bin/busybox", task.mm.arg_start.value_()
    assert access_remote_vm(task.mm, start, 12) == words == vcpu.virtual.read(start, 12, system=True)
    assert prog.stack_trace(task)[0].pc == vcpu.rip
