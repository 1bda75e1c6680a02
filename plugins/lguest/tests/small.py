"""The smallest kernels that lguest's launcher can start, in the shape of each generation, written in memory."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_lguest import backend
from pvops_lguest.host.abi import ABIS, DONE, VMCALL, Abi, Call, Descriptors
from pvops_native import backend as native

from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.images.elfwriter import ALLOC
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder

from .rig import Program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BASE = 0xC0000000
CODE = 0x100000
DATA = 0x110000
STACK = 0x120000
RAM = 8 << 20


def shared_page(abi: Abi) -> bytes:
    """A struct lguest_data as a kernel initialises it."""
    data = bytearray(abi.data.size)
    data[abi.data.hcall_status : abi.data.hcalls] = bytes([DONE]) * 64
    struct.pack_into("<I", data, abi.data.blocked_interrupts, 1)
    if abi.data.kernel_address is not None and abi.data.syscall_vec is not None:
        struct.pack_into("<I", data, abi.data.kernel_address, BASE)
        struct.pack_into("<I", data, abi.data.syscall_vec, 0x80)
    return bytes(data)


class SmallGuest:
    """Machine code for a kernel of one generation, which has made its first hypercall when ``code`` goes on."""

    def __init__(self, name: str, *, pae: bool = False) -> None:
        self.abi = ABIS[name]
        self.early = self.abi.descriptors is not Descriptors.BUS
        self.code = Program(CODE)
        self.symbols = {"lguest_data": BASE + DATA, "lguest_init": BASE + CODE}
        if pae:
            self.symbols["native_set_pud"] = BASE + CODE
        self.texts: dict[int, bytes] = {}
        if self.early:
            self.symbols["lguest_entry"] = self.code.here
        else:
            self.code.raw(b"GenuineLguest".hex())
        if self.abi.descriptors is Descriptors.FIELDS:
            self.symbols["lg_find"] = BASE + CODE
        self.call(Call.LGUEST_INIT, DATA)
        if self.early:
            self.code.op(0xB8, BASE + CODE + len(self.code.code) + 7).raw("ffe0")  # up to where it is linked
        self.code.load(esp=BASE + STACK)

    def call(self, call: Call, *args: int) -> SmallGuest:
        """A hypercall, by the instruction of the generation."""
        self.code.load(eax=self.abi.numbers[call])
        self.code.load(**dict(zip(self.abi.registers, args, strict=False)))
        self.code.raw(VMCALL.hex() if self.abi.vmcall else "cd1f")
        return self

    def end(self, message: str = "Power down") -> SmallGuest:
        """Power off, or crash with another message."""
        at = DATA + 0x1000
        self.texts[at] = message.encode() + b"\0"
        return self.call(Call.CRASH if Call.CRASH in self.abi.numbers else Call.SHUTDOWN, at, 1)

    def image(self) -> bytes:
        builder = ElfBuilder(32, base=BASE + CODE, entry=CODE)
        builder.text(".text", bytes(self.code.code).ljust(0x1000, b"\xcc"))
        page = shared_page(self.abi).ljust(0x2000, b"\0")
        for at, text in self.texts.items():
            page = page[: at - DATA] + text + page[at - DATA + len(text) :]
        builder.section(".data", page.ljust(0x10000, b"\0"), flags=ALLOC, address=BASE + DATA)
        for name, address in self.symbols.items():
            builder.symbol(name, address)
        return builder.build()

    def session(self, *, initrd: bytes = b"", cmdline: str = "", options: Mapping[str, str] | None = None) -> Session:
        kernel = Kernel(load_image(self.image(), self.abi.name), initrd, cmdline)
        return Session(kernel, (backend, native), memory=RAM, options=options or {})


def disk_file(folder: Path, sectors: int) -> Path:
    """A file whose sectors each say their number."""
    file = folder / "disk"
    file.write_bytes(b"".join(f"sector {number}".encode().ljust(512, b".") for number in range(sectors)))
    return file
