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
    """

    virt_base: int
    entry: int
    paddr_offset: int = 0
    hypercall_page: int | None = None
    init_p2m: int | None = None
    unmapped_initrd: bool = False
    bsd_symtab: bool = False

    @property
    def offset(self) -> int:
        """What to add to a segment's physical address to have its virtual one."""
        return self.virt_base - self.paddr_offset


def read_notes(image: KernelImage) -> XenNotes:
    """Read and check an image's notes.

    Raises:
        ImageError: it has none, or one that says that this loader or this hypervisor is not for it.
    """
    notes = {note.type: note.data for note in image.notes if note.owner == OWNER}
    if not notes:
        raise image.error("has no Xen notes: it cannot run as a paravirtualised domain", field="notes")
    _check_words(image, notes)
    _check_features(image, notes)
    word = image.pointer_size

    def number(kind: ElfNote) -> int | None:
        data = notes.get(kind)
        if data is None:
            return None
        if len(data) < min(word, 4):
            raise image.error(f"holds {len(data)} bytes, not a number", field=f"note {kind.name}")
        return int.from_bytes(data[:word] if len(data) >= word else data[:4], "little")

    if word == 4 and _word(notes, ElfNote.PAE_MODE) not in {"yes", "bimodal"}:
        raise image.error(
            "does not say that the kernel uses PAE; Xen has no other 32-bit guests", field="note PAE_MODE"
        )
    entry = number(ElfNote.ENTRY)
    return XenNotes(
        virt_base=number(ElfNote.VIRT_BASE) or 0,
        entry=image.entry if entry is None else entry,
        paddr_offset=number(ElfNote.PADDR_OFFSET) or 0,
        hypercall_page=number(ElfNote.HYPERCALL_PAGE),
        init_p2m=number(ElfNote.INIT_P2M),
        unmapped_initrd=bool(number(ElfNote.MOD_START_PFN)),
        bsd_symtab=_word(notes, ElfNote.BSD_SYMTAB) == "yes",
    )


def _word(notes: dict[int, bytes], kind: ElfNote) -> str:
    return notes.get(kind, b"").split(b"\0")[0].decode("ascii", "replace")


def _check_words(image: KernelImage, notes: dict[int, bytes]) -> None:
    """``elf_xen_note_check``: which loader and which interface the image is for."""
    if ElfNote.XEN_VERSION not in notes:
        raise image.error("is missing", field="note XEN_VERSION")
    version, loader = _word(notes, ElfNote.XEN_VERSION), _word(notes, ElfNote.LOADER)
    if not version.startswith("xen-3.0"):
        raise image.error(f"asks for {version!r}, not xen-3.0", field="note XEN_VERSION")
    if not loader.startswith("generic") and not _word(notes, ElfNote.GUEST_OS).startswith("linux"):
        raise image.error(f"asks for the loader {loader!r}, not the generic one", field="note LOADER")


def _check_features(image: KernelImage, notes: dict[int, bytes]) -> None:
    """``elf_xen_parse_features``: names parted by |, those with a ! in front are required."""
    for name in filter(None, _word(notes, ElfNote.FEATURES).split("|")):
        if not name.startswith("!"):
            continue
        if name[1:] not in FEATURES:
            raise image.error(f"requires {name[1:]!r}, which is no feature of Xen's", field="note FEATURES")
        if name[1:] in _NOT_HERE:
            raise image.error(f"requires {name[1:]}, which a paravirtualised domain cannot have", field="note FEATURES")
