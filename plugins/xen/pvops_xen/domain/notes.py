"""What an image says of itself in its Xen notes (xen/include/public/elfnote.h), read and checked."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

OWNER: Final = "Xen"


class ElfNote(enum.IntEnum):
    """``XEN_ELFNOTE_*``."""

    INFO = 0
    ENTRY = 1
    HYPERCALL_PAGE = 2
    VIRT_BASE = 3
    PADDR_OFFSET = 4
    XEN_VERSION = 5
    GUEST_OS = 6
    GUEST_VERSION = 7
    LOADER = 8
    PAE_MODE = 9
    FEATURES = 10
    BSD_SYMTAB = 11
    HV_START_LOW = 12
    L1_MFN_VALID = 13
    SUSPEND_CANCEL = 14
    INIT_P2M = 15
    MOD_START_PFN = 16
    SUPPORTED_FEATURES = 17
    PHYS32_ENTRY = 18


FEATURES: Final = (
    "writable_page_tables", "writable_descriptor_tables", "auto_translated_physmap", "supervisor_mode_kernel",
    "pae_pgdir_above_4gb", "mmu_pt_update_preserve_ad", "highmem_assist", "gnttab_map_avail_bits",
    "hvm_callback_vector", "hvm_safe_pvclock", "hvm_pirqs", "dom0",
)  # fmt: skip
"""Names of the XENFEAT_* bits in the order of their numbers, as libelf knows them."""
_NOT_HERE: Final = frozenset({"auto_translated_physmap", "supervisor_mode_kernel"})


_WORDS: Final = frozenset(
    {
        ElfNote.XEN_VERSION,
        ElfNote.GUEST_OS,
        ElfNote.GUEST_VERSION,
        ElfNote.LOADER,
        ElfNote.PAE_MODE,
        ElfNote.FEATURES,
        ElfNote.BSD_SYMTAB,
    }
)
_NUMBERS: Final = frozenset(
    {
        ElfNote.ENTRY,
        ElfNote.HYPERCALL_PAGE,
        ElfNote.VIRT_BASE,
        ElfNote.PADDR_OFFSET,
        ElfNote.INIT_P2M,
        ElfNote.MOD_START_PFN,
    }
)
_LEGACY: Final = {
    "LOADER": ElfNote.LOADER,
    "GUEST_OS": ElfNote.GUEST_OS,
    "GUEST_VER": ElfNote.GUEST_VERSION,
    "XEN_VER": ElfNote.XEN_VERSION,
    "PAE": ElfNote.PAE_MODE,
    "BSD_SYMTAB": ElfNote.BSD_SYMTAB,
    "VIRT_BASE": ElfNote.VIRT_BASE,
    "VIRT_ENTRY": ElfNote.ENTRY,
    "ELF_PADDR_OFFSET": ElfNote.PADDR_OFFSET,
    "HYPERCALL_PAGE": ElfNote.HYPERCALL_PAGE,
    "FEATURES": ElfNote.FEATURES,
}
"""Names in the string of ``__xen_guest``, and the notes that took their places."""
_LEGACY_NAMES: Final = {kind: name for name, kind in _LEGACY.items()}


@attrs.frozen
class XenNotes:
    """The notes that decide how a domain is built. Addresses are guest-virtual.

    Attributes:
        virt_base: address of pseudo-physical 0.
        entry: where the guest starts.
        paddr_offset: what to take from a segment's physical address.
        hypercall_page: page to fill with hypercall stubs; None for none.
        init_p2m: where the p2m list is to be mapped; None: after the kernel.
        unmapped_initrd: the ramdisk stays out of the first mapping and ``mod_start`` is its frame number.
        bsd_symtab: the symbol table is to follow the kernel.
        legacy: it was all said in the section ``__xen_guest``.
    """

    virt_base: int
    entry: int
    paddr_offset: int = 0
    hypercall_page: int | None = None
    init_p2m: int | None = None
    unmapped_initrd: bool = False
    bsd_symtab: bool = False
    legacy: bool = False

    def field(self, kind: ElfNote) -> str:
        """Where something was said, for errors."""
        return field_of(kind, legacy=self.legacy)

    @property
    def offset(self) -> int:
        """What to add to a segment's physical address to have its virtual one."""
        return self.virt_base - self.paddr_offset


def read_notes(image: KernelImage) -> XenNotes:
    """Read and check what an image says of itself, in ELF notes or, older, in a string in the section ``__xen_guest``.

    Raises:
        ImageError: it has none, or one that says that this loader or this hypervisor is not for it.
    """
    said = _said_by_notes(image) or _said_by_section(image)
    if said is None:
        raise image.error("has no Xen notes: it cannot run as a paravirtualised domain", field="notes")
    _check_words(image, said)
    _check_features(image, said)
    if ElfNote.ENTRY not in said.numbers and said.text(ElfNote.GUEST_OS) == "linux":  # xen-head.S, #ifdef CONFIG_XEN_PV
        raise image.error(
            "is a Linux that was built without XEN_PV: it names no entry for a paravirtualised domain",
            field=said.field(ElfNote.ENTRY),
        )
    if image.pointer_size == 4 and not said.text(ElfNote.PAE_MODE).startswith(("yes", "bimodal")):
        raise image.error(
            "does not say that the kernel uses PAE; Xen has no other 32-bit guests", field=said.field(ElfNote.PAE_MODE)
        )
    base, offset = said.numbers.get(ElfNote.VIRT_BASE), said.numbers.get(ElfNote.PADDR_OFFSET)
    if offset is not None and base is None:
        raise image.error("is there and VIRT_BASE is not", field=said.field(ElfNote.PADDR_OFFSET))
    virt_base = base or 0
    return XenNotes(
        virt_base=virt_base,
        entry=said.numbers.get(ElfNote.ENTRY, image.entry),
        # Images with the older string have virtual addresses for physical ones, unless they say otherwise.
        paddr_offset=offset if offset is not None else virt_base if said.legacy else 0,
        hypercall_page=said.numbers.get(ElfNote.HYPERCALL_PAGE),
        init_p2m=said.numbers.get(ElfNote.INIT_P2M),
        unmapped_initrd=bool(said.numbers.get(ElfNote.MOD_START_PFN)),
        bsd_symtab=said.text(ElfNote.BSD_SYMTAB) == "yes",
        legacy=said.legacy,
    )


@attrs.frozen
class _Said:
    """What an image says, by note.

    Attributes:
        texts: of the notes that are words.
        numbers: of those that are numbers.
        legacy: said in the section ``__xen_guest``.
    """

    texts: dict[int, str]
    numbers: dict[int, int]
    legacy: bool = False

    def text(self, kind: ElfNote) -> str:
        """A word; empty if it is not said."""
        return self.texts.get(kind, "")

    def field(self, kind: ElfNote) -> str:
        """Where it is said, for errors."""
        return field_of(kind, legacy=self.legacy)


def field_of(kind: ElfNote, *, legacy: bool) -> str:
    """Where an image says something, for errors."""
    return f"__xen_guest {_LEGACY_NAMES.get(kind, kind.name)}" if legacy else f"note {kind.name}"


def _said_by_notes(image: KernelImage) -> _Said | None:
    said = _Said({}, {})
    found = False
    for note in image.notes:
        if note.owner != OWNER:
            continue
        found = True
        if note.type in _WORDS:
            said.texts[note.type] = note.data.split(b"\0")[0].decode("ascii", "replace")
        elif note.type in _NUMBERS:
            if len(note.data) not in {1, 2, 4, 8}:
                raise image.error(f"holds {len(note.data)} bytes, no number", field=f"note {ElfNote(note.type).name}")
            said.numbers[note.type] = int.from_bytes(note.data, "little")
    return said if found else None


def _said_by_section(image: KernelImage) -> _Said | None:
    """``elf_xen_parse_guest_info``: NAME=value pairs parted by commas; the hypercall page is a page number."""
    section = image.section("__xen_guest")
    if section is None or not section.in_file:
        return None
    raw = image.data[section.offset : section.offset + section.size].split(b"\0")[0].decode("ascii", "replace")
    pairs = (pair.partition("=") for pair in raw.split(","))
    said = _Said({}, {}, legacy=True)
    for name, _, value in pairs:
        kind = _LEGACY.get(name)
        if kind in _WORDS:
            said.texts[kind] = "yes" if kind == ElfNote.BSD_SYMTAB else value
        elif kind is not None:
            try:
                said.numbers[kind] = int(value, 0)
            except ValueError:
                raise image.error(f"is {value!r}, no number", field=f"__xen_guest {name}") from None
    page = said.numbers.get(ElfNote.HYPERCALL_PAGE)
    if page is not None:
        said.numbers[ElfNote.HYPERCALL_PAGE] = (page << 12) + said.numbers.get(ElfNote.VIRT_BASE, 0)
    return said


def _check_words(image: KernelImage, said: _Said) -> None:
    """``elf_xen_note_check``: which loader and which interface the image is for."""
    version, loader = said.text(ElfNote.XEN_VERSION), said.text(ElfNote.LOADER)
    if not version and any(note.owner == OWNER and note.type == ElfNote.PHYS32_ENTRY for note in image.notes):
        text = "is there and XEN_VERSION is not: a kernel for PVH domains, which needs to be built for PV as well"
        raise image.error(text, field=f"note {ElfNote.PHYS32_ENTRY.name}")
    if not version:
        raise image.error("is missing", field=said.field(ElfNote.XEN_VERSION))
    if not version.startswith("xen-3.0"):
        raise image.error(f"asks for {version!r}, not xen-3.0", field=said.field(ElfNote.XEN_VERSION))
    if not loader.startswith("generic") and not said.text(ElfNote.GUEST_OS).startswith("linux"):
        raise image.error(f"asks for the loader {loader!r}, not the generic one", field=said.field(ElfNote.LOADER))


def _check_features(image: KernelImage, said: _Said) -> None:
    """``elf_xen_parse_features``: names parted by |, those with a ! in front are required."""
    field = said.field(ElfNote.FEATURES)
    for name in filter(None, said.text(ElfNote.FEATURES).split("|")):
        if not name.startswith("!"):
            continue
        if name[1:] not in FEATURES:
            raise image.error(f"requires {name[1:]!r}, which is no feature of Xen's", field=field)
        if name[1:] in _NOT_HERE:
            raise image.error(f"requires {name[1:]}, which a paravirtualised domain cannot have", field=field)
