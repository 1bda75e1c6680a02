"""Ops that no boot calls, proven where a first process of our own asks for them: ports, descriptors of its own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from pvops_core.backends import load_backends
from pvops_core.images.cpio import Entry, archive
from pvops_core.testing.proofs.proving import Prover
from pvops_core.testing.proofs.subject import Subject

CLOUD, CLOUD_7_2 = "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-7.2.13+deb14-cloud-amd64"
PORTS: Final = frozenset({"update_io_bitmap", "invalidate_io_bitmap"})
TABLES: Final = frozenset({"alloc_ldt", "free_ldt", "set_ldt"})
BASE: Final = 0x400000
NANOSLEEP, FORK, EXIT, WAIT4, MODIFY_LDT, REBOOT, IOPL, IOPERM = 35, 57, 60, 61, 154, 169, 172, 173
POWER_OFF: Final = (0xFEE1DEAD, 0x28121969, 0x4321FEDC)
ANY: Final = 0xFFFFFFFF
MILLISECOND: Final = struct.pack("<2Q", 0, 1_000_000)
DESCRIPTOR: Final = struct.pack("<4I", 3, 0x1000, 0xFFFFF, 0b101_0001)
"""struct user_desc (asm/ldt.h): entry 3, base, limit; 32-bit, in pages, usable."""


def call(number: int, *arguments: int) -> bytes:
    """A system call, whose arguments are in edi, esi and edx."""
    loads = zip((b"\xbf", b"\xbe", b"\xba"), arguments, strict=False)
    code = b"".join(register + struct.pack("<I", value) for register, value in loads)
    return code + b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"


def process() -> bytes:
    """A program that two processes run: each takes ports and descriptors, rests, and gives the ports back."""
    data = BASE + 0x1000
    rest = call(NANOSLEEP, data + len(DESCRIPTOR), 0)
    turn = call(IOPERM, 0x80, 8, 1) + b"\xe6\x80" + rest + call(IOPERM, 0x80, 4, 0)
    work = call(MODIFY_LDT, 1, data, len(DESCRIPTOR)) + 3 * turn + call(IOPL, 3) + b"\xe6\x80" + 2 * rest
    child = work + call(EXIT, 0)
    code = call(FORK) + b"\x85\xc0\x0f\x85" + struct.pack("<i", len(child)) + child
    code += work + call(WAIT4, ANY, 0, 0) + call(REBOOT, *POWER_OFF)
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    head = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + 0x78, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = 0x1000 + len(DESCRIPTOR) + len(MILLISECOND)
    head += struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, size, size, 0x1000)
    return (head + code).ljust(0x1000, b"\0") + DESCRIPTOR + MILLISECOND


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend", "ops"),
    [(CLOUD, "native", PORTS), (CLOUD, "xen", PORTS | TABLES), (CLOUD_7_2, "xen", PORTS | TABLES)],
)
def test_hooks_do_what_the_kernel_s_own_functions_do(
    kernel_path: Callable[[str], Path], tmp_path: Path, name: str, backend: str, ops: frozenset[str]
) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(archive([Entry.file("init", process(), 0o755)]))
    subject = Subject.of(backend, load_backends().backends, kernel_path(name), initrd, "")
    proof = Prover.of(subject, states=40, wanted=ops).prove()
    assert {each.op for each in proof.ops if each.states and each.equal == each.states} == ops
    assert not proof.unexplained
