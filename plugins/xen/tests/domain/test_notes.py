"""Notes and segments: which images are refused, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_xen.domain.notes import ElfNote, read_notes

from plugins.xen.tests.domain_rig import BASE, PAGE, TEXT, Notes, boot, elf
from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from pvops_core.session import Session


def _moved(bits: int, base: int) -> dict[ElfNote, bytes]:
    """Notes of an image whose addresses begin elsewhere."""
    word = bits // 8
    return {
        ElfNote.VIRT_BASE: base.to_bytes(word, "little"),
        ElfNote.ENTRY: (base + 0x100000).to_bytes(word, "little"),
    }


@pytest.mark.parametrize(
    ("bits", "changes", "field"),
    [
        (64, {ElfNote.XEN_VERSION: None}, "note XEN_VERSION"),
        (64, {ElfNote.XEN_VERSION: b"xen-2.0\0"}, "note XEN_VERSION"),
        (64, {ElfNote.LOADER: b"special\0"}, "note LOADER"),
        (64, {ElfNote.FEATURES: b"!time_travel"}, "note FEATURES"),
        (64, {ElfNote.FEATURES: b"highmem_assist|!auto_translated_physmap"}, "note FEATURES"),
        (64, {ElfNote.VIRT_BASE: bytes(3)}, "note VIRT_BASE"),
        (64, {ElfNote.VIRT_BASE: (0xFFFF_8000_0000_0000).to_bytes(8, "little")}, "note ENTRY"),
        (64, _moved(64, 0xFFFF_8000_0000_0000), "note VIRT_BASE"),
        (64, _moved(64, 0x8000_0000_0000), "note VIRT_BASE"),
        (32, _moved(32, 0xF580_0000), "note VIRT_BASE"),
        (64, {ElfNote.INIT_P2M: (0xFFFF_8300_0000_0000).to_bytes(8, "little")}, "note INIT_P2M"),
        (64, {ElfNote.INIT_P2M: (BASE[64] - 0x1000).to_bytes(8, "little")}, "note INIT_P2M"),
        (64, {ElfNote.VIRT_BASE: None, ElfNote.PADDR_OFFSET: bytes(8)}, "note PADDR_OFFSET"),
        (64, {ElfNote.ENTRY: bytes(8)}, "note ENTRY"),
        (64, {ElfNote.HYPERCALL_PAGE: (PAGE[64] + 8).to_bytes(8, "little")}, "note HYPERCALL_PAGE"),
        (64, {ElfNote.PADDR_OFFSET: (1 << 30).to_bytes(8, "little")}, "segment 0"),
        (32, {ElfNote.PAE_MODE: b"no\0"}, "note PAE_MODE"),
        (32, {ElfNote.PAE_MODE: None}, "note PAE_MODE"),
    ],
)
def test_the_error_names_the_note_or_segment(boots: list[Session], bits: int, changes: Notes, field: str) -> None:
    with pytest.raises(ImageError, match=field):
        boot(boots, elf(bits, changes))


def test_an_image_without_notes() -> None:
    builder = ElfBuilder(64, TEXT[64])
    builder.text(".text", b"\x90")
    with pytest.raises(ImageError, match="Xen notes"):
        read_notes(load_image(builder.build()))
