"""Small kernel images written in memory, for tests that need one of a certain shape."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable, Mapping
from typing import Final

import attrs
import lz4.block
import zstandard

from pvops_core.images.elfwriter import (
    ALLOC,
    EXEC,
    EXECUTABLE,
    HEADER_SIZE,
    MACHINES,
    NOTE,
    PROGBITS,
    SECTION_HEADER_SIZE,
    STRTAB,
    SYMTAB,
    ElfSection,
    append_sections,
    identification,
)


@attrs.define
class ElfBuilder:
    """An x86 ELF executable; every section that is in memory gets a segment of its own.

    Attributes:
        bits: 64 or 32.
        base: virtual address of the first section that is given none.
        entry: virtual address where it begins; the first section unless given.
    """

    bits: int = 64
    base: int = 0xFFFFFFFF81000000
    entry: int | None = None
    _sections: list[ElfSection] = attrs.field(factory=list, init=False)
    _symbols: list[tuple[str, int, int]] = attrs.field(factory=list, init=False)

    def section(self, name: str, data: bytes, *, flags: int = ALLOC, address: int | None = None) -> int:
        """Add a section with these bytes and give its virtual address, a fresh page unless one is given."""
        if address is None:
            ends = [section.address + len(section.data) for section in self._sections if section.flags & ALLOC]
            address = -(-max([self.base, *ends]) // 0x1000) * 0x1000
        self._sections.append(ElfSection(name, PROGBITS, flags, data, address))
        return address

    def text(self, name: str, data: bytes, *, address: int | None = None) -> int:
        """Add a section of instructions."""
        return self.section(name, data, flags=ALLOC | EXEC, address=address)

    def notes(self, *notes: tuple[str, int, bytes]) -> None:
        """Add ELF notes: owner, type and data each."""
        data = b""
        for owner, kind, payload in notes:
            name = owner.encode() + b"\0"
            data += struct.pack("<III", len(name), len(payload), kind) + _pad(name, 4) + _pad(payload, 4)
        self.section(".notes", data)
        self._sections[-1].kind = NOTE

    def symbol(self, name: str, address: int, *, is_global: bool = True) -> None:
        """Add a function symbol; with none at all the image is a stripped one."""
        self._symbols.append((name, address, 0x12 if is_global else 0x02))

    def build(self) -> bytes:
        """The file."""
        loads = [section for section in self._sections if section.flags & ALLOC]
        notes = [section for section in loads if section.kind == NOTE]
        header_size, segment_size = HEADER_SIZE[self.bits], 56 if self.bits == 64 else 32
        body = bytearray(header_size + segment_size * (len(loads) + len(notes)))
        table, count = append_sections(body, [*self._sections, *self._symbol_sections()], self.bits)
        segments = [(1, section) for section in loads] + [(4, section) for section in notes]
        headers = b"".join(self._segment_header(kind, section) for kind, section in segments)
        entry = self.entry if self.entry is not None else loads[0].address if loads else 0
        counts = (header_size, segment_size, len(segments), SECTION_HEADER_SIZE[self.bits], count, count - 1)
        word = "Q" if self.bits == 64 else "I"
        header = struct.pack(
            f"<HHI{word * 3}I6H", EXECUTABLE, MACHINES[self.bits], 1, entry, header_size, table, 0, *counts
        )
        body[: header_size + len(headers)] = identification(self.bits) + header + headers
        return bytes(body)

    def _symbol_sections(self) -> list[ElfSection]:
        if not self._symbols:
            return []
        strings, table = b"\0", bytes(24 if self.bits == 64 else 16)
        for name, address, info in self._symbols:
            if self.bits == 64:
                table += struct.pack("<IBBHQQ", len(strings), info, 0, 1, address, 0)
            else:
                table += struct.pack("<IIIBBH", len(strings), address, 0, info, 0, 1)
            strings += name.encode() + b"\0"
        # The null section and ours come first, so the string table's number is one more than the symbol table's.
        link = len(self._sections) + 2
        return [
            ElfSection(".symtab", SYMTAB, 0, table, link=link, entry_size=24 if self.bits == 64 else 16),
            ElfSection(".strtab", STRTAB, 0, strings),
        ]

    def _segment_header(self, kind: int, section: ElfSection) -> bytes:
        flags = 5 if section.flags & EXEC else 6
        size = len(section.data)
        physical = section.address & 0x3FFFFFFF
        if self.bits == 64:
            return struct.pack("<IIQQQQQQ", kind, flags, section.offset, section.address, physical, size, size, 0x1000)
        return struct.pack("<8I", kind, section.offset, section.address, physical, size, size, flags, 0x1000)


def _pad(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


def _lz4_legacy(data: bytes) -> bytes:
    packed = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        packed += struct.pack("<I", len(block)) + block
    return packed


def _zstd(data: bytes) -> bytes:
    """As the kernel's build calls it: from a pipe, so without the size in the frame, and with the widest window."""
    widest = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, write_content_size=False)
    engine = zstandard.ZstdCompressor(compression_params=widest).compressobj()
    return engine.compress(data) + engine.flush()


def _sized(packer: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: packer(data) + struct.pack("<I", len(data))


PACKERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": _sized(bz2.compress),
    "lzma": _sized(lambda data: lzma.compress(data, lzma.FORMAT_ALONE)),
    "xz": _sized(lambda data: lzma.compress(data, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32)),
    "lz4": _sized(_lz4_legacy),
    "zstd": _sized(_zstd),
}
"""Format name to what makes a kernel's payload of it, the appended size included where the format has none."""


def make_bzimage(vmlinux: bytes, packer: str = "gzip", *, release: str = "6.1.0-test", protocol: int = 0x20F) -> bytes:
    """A bzImage around a vmlinux.

    Args:
        vmlinux: what it unpacks to.
        packer: a key of :data:`PACKERS`.
        release: what its version string begins with.
        protocol: boot protocol version; one below 0x208 has no payload fields.
    """
    return wrap_payload(PACKERS[packer](vmlinux), release=release, protocol=protocol)


def wrap_payload(payload: bytes, *, release: str = "6.1.0-test", protocol: int = 0x20F) -> bytes:
    """A bzImage around any payload; see :func:`make_bzimage`."""
    setup_sectors, gap = 3, 64
    image = bytearray((setup_sectors + 1) * 512 + gap)
    # setup_sects, boot_flag, header and version, kernel_version, payload_offset (Documentation/arch/x86/boot.rst).
    image[0x1F1] = setup_sectors
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, protocol)
    version = f"{release} (builder@example.org) #1 SMP".encode() + b"\0"
    # The place of kernel_version is told less 0x200.
    struct.pack_into("<H", image, 0x20E, 0x200)
    image[0x400 : 0x400 + len(version)] = version
    if protocol >= 0x208:
        struct.pack_into("<II", image, 0x248, gap, len(payload))
    return bytes(image + payload)
