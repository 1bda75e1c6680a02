"""ELF headers of a kernel, 32 and 64 bit, through pyelftools; everything a file can get wrong ends in ImageError.

pyelftools' structures are used one at a time and its section objects are not: those follow links between sections
when they are made, which a hostile file can turn into recursion.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, Final, cast

import attrs
from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.structs import ELFStructs

from pvops_core.errors import ImageError
from pvops_core.images.model import Note, Section, Segment
from pvops_core.mapped import MappedBytes

if TYPE_CHECKING:
    from pvops_core.mapped import ByteString

MACHINES: Final[Mapping[str, tuple[str, int]]] = {"EM_386": ("i386", 32), "EM_X86_64": ("x86_64", 64)}
"""e_machine to our name and the only ELF class it may have."""

SECTION_LIMIT: Final = 4096
SEGMENT_LIMIT: Final = 256
NOTE_LIMIT: Final = 4096
"""Most of each that are read; a vmlinux has some 40 sections, 5 segments and 20 notes."""

# What pyelftools and construct raise on damaged input; found by mutation, not documented.
FAILURES = (
    ELFError,
    ConstructError,
    struct.error,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
)


@attrs.frozen
class ElfHeaders:
    """What the headers of a kernel say."""

    machine: str
    entry: int
    sections: tuple[Section, ...]
    segments: tuple[Segment, ...]
    notes: tuple[Note, ...]


@attrs.frozen
class _ElfReader:
    data: ByteString
    path: str
    structs: ELFStructs
    stream: IO[bytes]

    def error(self, message: str, offset: int, field: str) -> ImageError:
        return ImageError(message, self.path, offset, field)

    def parse(self, kind: Any, offset: int, field: str) -> Any:  # noqa: ANN401 - construct's containers are untyped
        """One structure; the one place where pyelftools runs, and where what it raises is translated."""
        if offset > len(self.data):
            raise self.error(f"lies past the end of the image's {len(self.data):#x} bytes", offset, field)
        try:
            return struct_parse(kind, self.stream, stream_pos=offset)
        except FAILURES as failure:
            raise self.error(f"cannot be read: {failure or type(failure).__name__}", offset, field) from failure


def is_module(data: bytes) -> bool:
    """Whether this is an ELF file that is still to be linked (``ET_REL``), as a kernel module is."""
    # e_type 1, little-endian.
    return data.startswith(b"\x7fELF") and data[16:18] == b"\1\0"


def read_headers(data: ByteString, path: str, *, module: bool = False) -> ElfHeaders:
    """Read and check the headers of a kernel, or of a module.

    Args:
        data: the image, from the ELF header on.
        path: for the messages.
        module: whether it should be a file that is still to be linked, which has no segments.

    Raises:
        ImageError: not an x86 ELF file of that kind, or a header that is damaged or speaks of bytes that are not there.
    """
    reader = _make_reader(data, path)
    header = reader.parse(reader.structs.Elf_Ehdr, 0, "Elf_Ehdr")
    machine, bits = MACHINES.get(str(header.e_machine), ("", 0))
    # x32 and other mixtures are no kernel.
    if not machine:
        raise reader.error(f"is for machine {header.e_machine}, not x86", 18, "e_machine")
    if bits != reader.structs.elfclass:
        message = f"is for {machine} but of the {reader.structs.elfclass}-bit class"
        raise reader.error(message, 4, "e_ident[EI_CLASS]")
    if header.e_type not in ({"ET_REL"} if module else {"ET_EXEC", "ET_DYN"}):
        kind = "a module" if module else "an executable"
        raise reader.error(f"is of type {header.e_type}, not {kind}", 16, "e_type")
    segments, note_ranges = ((), []) if module else _read_segments(reader, header)
    sections = _read_sections(reader, header)
    # Linkers of the 2.6 age left out PT_NOTE in some configurations; the sections say the same.
    note_ranges = note_ranges or [
        (section.offset, section.size, f"section[{section.index}] {section.name}")
        for section in sections
        if section.kind == "SHT_NOTE"
    ]
    notes = tuple(note for place in note_ranges for note in _read_notes(reader, *place))
    return ElfHeaders(machine, header.e_entry, sections, segments, notes)


def _make_reader(data: ByteString, path: str) -> _ElfReader:
    if not data.startswith(b"\x7fELF"):
        raise ImageError(f"is neither a bzImage nor an ELF image (begins {data[:4].hex(' ')})", path, 0, "e_ident")
    ident = data[4:6].ljust(2, b"\0")
    if ident[0] not in {1, 2}:
        raise ImageError(f"has ELF class {ident[0]}, neither 32 nor 64 bit", path, 4, "e_ident[EI_CLASS]")
    if ident[1] != 1:
        raise ImageError(f"has data encoding {ident[1]}; x86 is little-endian (1)", path, 5, "e_ident[EI_DATA]")
    structs = ELFStructs(little_endian=True, elfclass=64 if ident[0] == 2 else 32)
    structs.create_basic_structs()
    structs.create_advanced_structs()
    return _ElfReader(data, path, structs, _stream(data))


def _stream(data: ByteString) -> IO[bytes]:
    return cast("IO[bytes]", data) if isinstance(data, MappedBytes) else io.BytesIO(data)


def _table(reader: _ElfReader, header: Any, kind: str, limit: int, size: int) -> list[int]:  # noqa: ANN401 - see parse
    """Offsets of the entries of the program ("ph") or section ("sh") header table, all inside the image."""
    offset, count, step = header[f"e_{kind}off"], header[f"e_{kind}num"], header[f"e_{kind}entsize"]
    if not offset or not count:
        # Neither is not damage: stripped images have no sections.
        return []
    if count > limit:
        raise reader.error(f"has {count} entries; the most taken is {limit}", 0, f"e_{kind}num")
    # Larger is allowed, for fields may be added (gABI).
    if step < size:
        raise reader.error(
            f"has entries of {step} bytes, fewer than the {size} of the structure", 0, f"e_{kind}entsize"
        )
    if offset + count * step > len(reader.data):
        message = f"{count} entries of {step} bytes reach past the end of the image's {len(reader.data):#x} bytes"
        raise reader.error(message, offset, f"e_{kind}off")
    return [offset + index * step for index in range(count)]


def _read_segments(reader: _ElfReader, header: Any) -> tuple[tuple[Segment, ...], list[tuple[int, int, str]]]:  # noqa: ANN401 - see parse
    segments: list[Segment] = []
    notes: list[tuple[int, int, str]] = []
    size = reader.structs.Elf_Phdr.sizeof()
    for index, offset in enumerate(_table(reader, header, "ph", SEGMENT_LIMIT, size)):
        field = f"segment[{index}]"
        entry = reader.parse(reader.structs.Elf_Phdr, offset, field)
        if entry.p_type not in {"PT_LOAD", "PT_NOTE"}:
            continue
        # Before it is used: what lies outside of the file cannot be loaded.
        if entry.p_offset + entry.p_filesz > len(reader.data):
            message = f"{entry.p_filesz:#x} bytes at {entry.p_offset:#x} reach past the end of the image"
            raise reader.error(message, offset, f"{field} p_filesz")
        if entry.p_type == "PT_NOTE":
            notes.append((entry.p_offset, entry.p_filesz, field))
            continue
        if entry.p_memsz < entry.p_filesz:
            message = f"is {entry.p_memsz:#x} bytes in memory, fewer than in the file"
            raise reader.error(message, offset, f"{field} p_memsz")
        # An address that wraps would match anything.
        if (entry.p_vaddr + entry.p_memsz) >> reader.structs.elfclass:
            message = f"{entry.p_memsz:#x} bytes at {entry.p_vaddr:#x} reach past the top of the address space"
            raise reader.error(message, offset, f"{field} p_memsz")
        made = Segment(entry.p_vaddr, entry.p_paddr, entry.p_offset, entry.p_filesz, entry.p_memsz, entry.p_flags)
        for other in segments:
            # Two places for one address: which bytes are there would depend on the order of loading.
            if made.address < other.address + other.memory_size and other.address < made.address + made.memory_size:
                message = f"{made.address:#x}+{made.memory_size:#x} overlaps the segment at {other.address:#x}"
                raise reader.error(message, offset, f"{field} p_vaddr")
        segments.append(made)
    if not segments:
        raise reader.error("has no PT_LOAD segment: nothing would be in memory", header.e_phoff, "e_phoff")
    return tuple(segments), notes


def _read_sections(reader: _ElfReader, header: Any) -> tuple[Section, ...]:  # noqa: ANN401 - see parse
    offsets = _table(reader, header, "sh", SECTION_LIMIT, reader.structs.Elf_Shdr.sizeof())
    entries = [
        reader.parse(reader.structs.Elf_Shdr, offset, f"section[{index}]") for index, offset in enumerate(offsets)
    ]
    for index, (entry, offset) in enumerate(zip(entries, offsets, strict=True)):
        in_file = entry.sh_type not in {"SHT_NULL", "SHT_NOBITS"}
        if in_file and entry.sh_offset + entry.sh_size > len(reader.data):
            message = f"{entry.sh_size:#x} bytes at {entry.sh_offset:#x} reach past the end of the image"
            raise reader.error(message, offset, f"section[{index}] sh_size")
    names = b""
    if entries:
        # SHN_XINDEX is not taken: a kernel has few sections.
        if header.e_shstrndx >= len(entries):
            raise reader.error(f"is {header.e_shstrndx}; there are {len(entries)} sections", 0, "e_shstrndx")
        strings = entries[header.e_shstrndx]
        names = reader.data[strings.sh_offset : strings.sh_offset + strings.sh_size]
    sections = []
    for index, entry in enumerate(entries):
        if entry.sh_name > len(names):
            message = f"is {entry.sh_name:#x}; the name table has {len(names):#x} bytes"
            raise reader.error(message, offsets[index], f"section[{index}] sh_name")
        sections.append(_section(index, entry, names))
    return tuple(sections)


def _section(index: int, entry: Any, names: bytes) -> Section:  # noqa: ANN401 - see _Reader.parse
    end = names.find(b"\0", entry.sh_name)
    # A name that does not end ends with its table.
    name = names[entry.sh_name : end if end >= 0 else len(names)][:256].decode("utf-8", "replace")
    return Section(
        index=index,
        name=name,
        kind=str(entry.sh_type),
        flags=entry.sh_flags,
        address=entry.sh_addr,
        offset=entry.sh_offset,
        size=entry.sh_size,
        link=entry.sh_link,
        entry_size=entry.sh_entsize,
        info=entry.sh_info,
    )


def _read_notes(reader: _ElfReader, offset: int, size: int, field: str) -> Iterator[Note]:
    """The notes in a range (gABI): each is three words, then the owner and the data, both padded to 4 bytes.

    The data of the last may be cut short: GRUB's 32-bit Xen image states 12 bytes where 4 are left.
    """
    position, end = offset, offset + size
    for index in range(NOTE_LIMIT):
        if position + 12 > end:
            return
        name_size, data_size, kind = struct.unpack_from("<III", reader.data, position)
        start = position + 12
        # Both are padded to four bytes, in 64-bit files too, as Linux writes them.
        data = start + (name_size + 3 & ~3)
        following = data + (data_size + 3 & ~3)
        # Data of no bytes may begin at the end.
        if start + name_size > end or (data_size and data >= end):
            message = f"owner of {name_size:#x} and data of {data_size:#x} bytes reach past the notes' end"
            raise reader.error(message, position, f"{field} note[{index}]")
        # The owner counts its NUL.
        owner = reader.data[start : start + name_size].rstrip(b"\0").decode("ascii", "replace")
        yield Note(owner, kind, reader.data[data : min(data + data_size, end)])
        position = following
    raise reader.error(f"holds more than {NOTE_LIMIT} notes", offset, field)
