"""The notes of a dump: what each processor was doing (NT_PRSTATUS), and what the kernel says of itself (VMCOREINFO)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pvops_core.headers import Header
from pvops_core.x86 import MSR_FS_BASE, MSR_GS_BASE

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

HEADER: Final = Header(Path(__file__).with_name("elfcore.h"))
BITS: Final = 64
_PRSTATUS: Final = HEADER["elf_prstatus"]
_NT_PRSTATUS: Final = 1
_NOTE: Final = struct.Struct("<III")  # Elf64_Nhdr: bytes of name and description, type
VMCOREINFO: Final = b"VMCOREINFO"

_REGISTERS: Final = {
    **{name[1:]: name for name in ("rbp", "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "rip", "rsp")},
    **{name: name for name in ("cs", "ss", "ds", "es", "fs", "gs", *(f"r{number}" for number in range(8, 16)))},
    "flags": "rflags",
}
"""Fields of ``struct user_regs_struct`` by the machine's names."""


def note(owner: bytes, type: int, data: bytes) -> bytes:
    """A note of an ELF file: its name ends in a NUL, and both parts are filled up to 4 bytes."""
    name = owner + b"\0"
    return _NOTE.pack(len(name), len(data), type) + _filled(name) + _filled(data)


def _filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def described(data: bytes, owner: bytes) -> bytes | None:
    """The description of a note at the beginning of some bytes; None if it is not whole, or another's."""
    name = owner + b"\0"
    if len(data) < _NOTE.size:
        return None
    names, length, _type = _NOTE.unpack_from(data)
    start = _NOTE.size + len(_filled(name))
    if names != len(name) or data[_NOTE.size : _NOTE.size + names] != name or not 0 < length <= len(data) - start:
        return None
    return data[start : start + length]


def status_of(vcpu: Vcpu) -> bytes:
    """A processor's NT_PRSTATUS: its registers.

    Its ``pr_pid`` is the processor's number and one more, as QEMU's ``dump-guest-memory`` has it: by that drgn knows
    whose it is in a dump of a kernel that has not crashed into kdump.
    """
    values = vcpu.batch(*_REGISTERS.values()).read()
    fields = {f"pr_reg.{field}": value for field, value in zip(_REGISTERS, values, strict=True)}
    fields["pr_reg.fs_base"], fields["pr_reg.gs_base"] = vcpu.msr(MSR_FS_BASE), vcpu.msr(MSR_GS_BASE)
    fields["pr_reg.orig_ax"] = -1  # it is in no system call that would be made again
    return note(b"CORE", _NT_PRSTATUS, _PRSTATUS.packed(BITS, {"pr_pid": vcpu.index + 1, **fields}))
