"""What a kernel image is, once read: bytes, sections, segments, notes and symbols, as plain data."""

from __future__ import annotations

import weakref
from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.errors import ImageError
from pvops_core.images.btf import read_btf
from pvops_core.images.keptsymbols import kept_symbols
from pvops_core.images.symbols import read_symbols

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from pvops_core.images.btf import Btf
    from pvops_core.images.symboltable import SymbolTable
    from pvops_core.mapped import ByteString

READ_LIMIT: Final = 1 << 28
"""Most bytes one :meth:`KernelImage.read` gives; zero-filled memory in a segment costs a file nothing."""

SHF_ALLOC: Final = 0x2
SHF_EXECINSTR: Final = 0x4


@attrs.frozen
class Section:
    """One section header (ELF specification, chapter 1, "Sections").

    Attributes:
        index: its number in the section header table.
        name: its name, undecodable bytes replaced.
        kind: ``sh_type`` by name, ``SHT_PROGBITS``; a number where it has none.
        flags: ``sh_flags``.
        address: virtual address, 0 if it has none.
        offset: first byte in the unpacked image.
        size: bytes in memory; also in the file, unless it is ``SHT_NOBITS``.
        link: ``sh_link``.
        entry_size: ``sh_entsize``.
        info: ``sh_info``: of relocations, the number of the section that they are for.
    """

    index: int
    name: str
    kind: str
    flags: int
    address: int
    offset: int
    size: int
    link: int
    entry_size: int
    info: int = 0

    @property
    def in_file(self) -> bool:
        """Whether the file holds its bytes."""
        return self.kind not in {"SHT_NULL", "SHT_NOBITS"}

    @property
    def executable(self) -> bool:
        """Whether it holds instructions that are in memory."""
        return self.flags & (SHF_ALLOC | SHF_EXECINSTR) == SHF_ALLOC | SHF_EXECINSTR

    def __contains__(self, address: int) -> bool:
        return self.address <= address < self.address + self.size


@attrs.frozen
class Segment:
    """One ``PT_LOAD`` program header.

    Attributes:
        address: virtual address of its first byte.
        physical: physical address of its first byte, as the kernel's link script gave it.
        offset: first byte in the unpacked image.
        file_size: bytes from the file.
        memory_size: bytes in memory; those after ``file_size`` are zero.
        flags: ``p_flags``: 1 execute, 2 write, 4 read.
    """

    address: int
    physical: int
    offset: int
    file_size: int
    memory_size: int
    flags: int


@attrs.frozen
class Note:
    """One ELF note: ``owner`` is its name without the NUL, ``type`` and ``data`` belong to the owner."""

    owner: str
    type: int
    data: bytes


@attrs.frozen(slots=False, eq=False)
class KernelImage:
    """A kernel as it is before it runs.

    Attributes:
        path: the file as the caller named it.
        data: the unpacked image, from the ELF header on; of a packed kernel that was seen before, in a file.
        sha256: hex digest of ``data``.
        release: what ``uname -r`` would print; empty if the image does not say.
        machine: ``"x86_64"`` or ``"i386"``.
        entry: ``e_entry``.
        sections: all of them, in file order.
        segments: the ``PT_LOAD`` ones, in file order.
        notes: of all ``PT_NOTE`` segments (or note sections, where no segment names them).
    """

    path: str
    data: ByteString = attrs.field(repr=False)
    sha256: str
    release: str
    machine: str
    entry: int
    sections: tuple[Section, ...] = attrs.field(repr=False)
    segments: tuple[Segment, ...] = attrs.field(repr=False)
    notes: tuple[Note, ...] = attrs.field(repr=False)

    @property
    def pointer_size(self) -> int:
        """Bytes in a pointer: 8 or 4."""
        return 8 if self.machine == "x86_64" else 4

    @cached_property
    def symbol_table(self) -> SymbolTable:
        """Symbols from ``.symtab`` or, in a stripped kernel, from kallsyms; read when first asked for.

        Raises:
            ImageError: a table is there and is damaged.
        """
        return kept_symbols(self.sha256, lambda: read_symbols(self))

    @property
    def types(self) -> Btf | None:
        """The kernel's own type information; None if it has none that can be read.

        It is read once for all who hold it at a time, and no longer: of a distribution's kernel it is 50 MiB.
        """
        # Held weakly: it is large, and most who ask do so once.
        held: weakref.ref[Btf] | None = vars(self).get("_types")
        types = held() if held is not None else None
        if types is None:
            types = read_btf(self)
            if types is not None:
                vars(self)["_types"] = weakref.ref(types)
        return types

    @property
    def symbols(self) -> Mapping[str, int]:
        """Name to virtual address. Of several symbols with one name a global one wins, then the first."""
        return self.symbol_table.by_name

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        """The symbol at or nearest below an address, and the distance to it in bytes."""
        table = self.symbol_table
        # The last symbol at or below the address.
        index = bisect_right(table.addresses, address) - 1
        if index < 0:
            return None
        return table.names[index], address - table.addresses[index]

    def section(self, name: str) -> Section | None:
        """The first section of that name."""
        return next((section for section in self.sections if section.name == name), None)

    def section_at(self, address: int) -> Section | None:
        """The section in memory that holds an address; sections without bytes in the file come last."""
        # .bss may overlap what the file holds in images that a linker script packs.
        found = [section for section in self._allocated if address in section]
        return min(found, key=lambda section: not section.in_file) if found else None

    @cached_property
    def _allocated(self) -> tuple[Section, ...]:
        return tuple(section for section in self.sections if section.flags & SHF_ALLOC)

    def section_bytes(self, name: str) -> bytes | None:
        """The bytes of a section; None if there is no such section or the file holds none of it."""
        section = self.section(name)
        if section is None or not section.in_file:
            return None
        return self.data[section.offset : section.offset + section.size]

    @property
    def paravirt(self) -> bytes | None:
        """The bytes of ``.parainstructions``; None in a kernel without (from 6.8 on, or no PARAVIRT)."""
        return self.section_bytes(".parainstructions")

    @property
    def altinstructions(self) -> bytes | None:
        """The bytes of ``.altinstructions``."""
        return self.section_bytes(".altinstructions")

    def offset_of(self, address: int, length: int = 1) -> int:
        """Where in ``data`` the bytes at a virtual address are.

        Raises:
            ImageError: no one segment holds all of them in the file.
        """
        for segment in self.segments:
            start = address - segment.address
            if start >= 0 and start + length <= segment.file_size:
                return segment.offset + start
        raise self.error(f"no segment holds all of its {length:#x} bytes", field=f"address {address:#x}")

    def offsets_of(self, addresses: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Where in ``data`` each of many bytes is; ImageError as for :meth:`offset_of`."""
        found = np.full(len(addresses), -1, np.intp)
        for segment in self.segments:
            start = addresses - np.uint64(segment.address)  # wraps below the segment to what is behind any
            here = (found < 0) & (start < segment.file_size)
            found[here] = start[here].astype(np.intp) + segment.offset
        if (found < 0).any():
            address = int(addresses[found < 0][0])
            raise self.error("no segment holds it", field=f"address {address:#x}")
        return found

    def read(self, address: int, length: int) -> bytes:
        """Memory as it is when the image has been loaded.

        Args:
            address: virtual address of the first byte.
            length: bytes, at most :data:`READ_LIMIT`.

        Raises:
            ImageError: no one segment holds all of them.
        """
        for segment in self.segments:
            start = address - segment.address
            # Bounded: zero-filled memory costs a file nothing.
            if start >= 0 and 0 <= length <= READ_LIMIT and start + length <= segment.memory_size:
                end = min(start + length, segment.file_size)
                return self.data[segment.offset + start : segment.offset + end].ljust(length, b"\0")
        raise self.error(f"no segment holds all of its {length:#x} bytes", field=f"address {address:#x}")

    def pointers(self, address: int, count: int) -> tuple[int, ...]:
        """``count`` little-endian pointers from a virtual address on.

        Raises:
            ImageError: no one segment holds all of them.
        """
        return tuple(self._words(self.read(address, count * self.pointer_size)))

    def _words(self, data: bytes) -> Iterator[int]:
        size = self.pointer_size
        return (int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size))

    def error(self, message: str, *, field: str = "", offset: int | None = None) -> ImageError:
        """An error about this image, ready to raise."""
        return ImageError(message, path=self.path, field=field, offset=offset)
