"""Small guests in ELF files."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from pvops_xen import backend
from pvops_xen.domain.notes import ElfNote
from pvops_xen.hypervisor.layout import START_INFO

from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder

BASE = {64: 0xFFFF_FFFF_8000_0000, 32: 0xC000_0000}
TEXT = {bits: base + 0x100000 for bits, base in BASE.items()}
PAGE = {bits: text + 0x1000 for bits, text in TEXT.items()}
MAGIC = {64: b"xen-3.0-x86_64", 32: b"xen-3.0-x86_32p"}
MEMORY = 16 << 20
Notes = Mapping[ElfNote, bytes | None]


def code_of(bits: int, *, by_page: bool = False) -> bytes:
    """Prints start_info's magic by console_io, then powers off; by the instruction or by the hypercall page."""

    def call(number: int, so_far: int) -> bytes:
        if not by_page:
            return bytes.fromhex("0f05" if bits == 64 else "cd82").ljust(5, b"\x90")
        return b"\xe8" + struct.pack("<i", PAGE[bits] + 32 * number - (TEXT[bits] + so_far + 5))

    if bits == 64:
        code = bytes.fromhex("4889f2 b812000000 31ff") + b"\xbe" + struct.pack("<I", len(MAGIC[64]))
        code += call(18, len(code)) + bytes.fromhex("b81d000000 bf02000000 488d3505000000")
    else:
        code = bytes.fromhex("89f2 b812000000 31db") + b"\xb9" + struct.pack("<I", len(MAGIC[32]))
        code += call(18, len(code)) + bytes.fromhex("b81d000000 bb02000000")
        code += b"\xb9" + struct.pack("<I", TEXT[32] + len(code) + 10)
    return code + call(29, len(code)) + bytes(4)


def elf(bits: int, changes: Notes | None = None, *, by_page: bool = False, before: str = "") -> bytes:
    builder = ElfBuilder(bits, TEXT[bits])
    builder.text(".text", bytes.fromhex(before) + code_of(bits, by_page=by_page))
    builder.section(".page", bytes(0x1000), address=PAGE[bits])
    word = bits // 8
    notes: dict[ElfNote, bytes | None] = {
        ElfNote.GUEST_OS: b"test\0",
        ElfNote.LOADER: b"generic\0",
        ElfNote.XEN_VERSION: b"xen-3.0\0",
        ElfNote.VIRT_BASE: BASE[bits].to_bytes(word, "little"),
        ElfNote.ENTRY: TEXT[bits].to_bytes(word, "little"),
        ElfNote.PAE_MODE: b"yes\0",
        **(changes or {}),
    }
    builder.notes(*(("Xen", kind, data) for kind, data in notes.items() if data is not None))
    return builder.build()


def boot(
    boots: list[Session],
    image: bytes,
    *,
    initrd: bytes = b"",
    cmdline: str = "",
    memory: int = MEMORY,
    vcpus: int = 1,
    **options: str,
) -> Session:
    kernel = Kernel(load_image(image), initrd, cmdline)
    session = Session(kernel, (backend,), memory=memory, vcpus=vcpus, options=options)
    boots.append(session)
    return session


WORDS = (
    *("nr_pages", "shared_info", "flags", "console.domU.mfn", "pt_base", "nr_pt_frames", "mfn_list"),
    *("mod_start", "mod_len", "first_p2m_pfn", "nr_p2m_frames"),
)


def start_info(session: Session, bits: int) -> dict[str, int]:
    """The fields of start_info that are unsigned longs, by way of RSI."""
    cpu = session.machine.vcpus[0]
    address = cpu.get("rsi" if bits == 64 else "esi")
    return {name: cpu.word(address + START_INFO.offset(name, bits)) for name in WORDS} | {"address": address}
