"""A kernel's image as a guest: one that fills its own table of ops and patches itself."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import attrs

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.images.reading import read_file
from pvops_core.kinds import kind_of, will_do
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.guest import GuestText
    from pvops_core.images import KernelImage
    from pvops_core.kinds import MachineKind

BOOT_PROTOCOL: Final = "kernel"
"""What the image itself asks for: Linux's own, PVH's, Xen's; the platform knows which."""
_PAE_MODE: Final = 9
"""XEN_ELFNOTE_PAE_MODE (xen/include/public/elfnote.h)."""
_PAE_ONLY: Final = frozenset({"native_set_pud", "native_make_pmd", "initial_pg_pmd"})
"""Of 32-bit kernels those with X86_PAE alone have them: ops of the third level, and a table of head_32.S."""
_LONG: Final = 8
_DIRECT_MAP: Final = {4: 0xC0000000, 8: 0xFFFF888000000000}
"""PAGE_OFFSET by a pointer's size, with the usual split (asm/page_32_types.h, page_64_types.h)."""


@attrs.frozen(slots=False)
class Kernel:
    """A kernel, ready to be put into a machine.

    Attributes:
        image: the unpacked kernel.
        initrd: bytes of the initial ramdisk, as they are in its file; empty for none.
        cmdline: the command line.
        initrd_path: where the ramdisk was read from, as the caller named it; empty for nowhere.
    """

    boot_protocol: ClassVar[str] = BOOT_PROTOCOL
    default_memory: ClassVar[int] = 256 << 20
    slice_blocks: ClassVar[int] = 200_000
    """Mean length of a slice. The platform ends slices at its timers; more turns of the run loop are waste."""

    image: KernelImage
    initrd: bytes = attrs.field(default=b"", repr=False)
    cmdline: str = ""
    initrd_path: str = attrs.field(default="", eq=False)

    @property
    def kind(self) -> MachineKind:
        """The machine that it is best run on."""
        return kind_of(self.image.machine)

    @property
    def kinds(self) -> tuple[MachineKind, ...]:
        """That one, and one without PAE where nothing says that it needs that."""
        return (self.kind,) if self._needs_pae else will_do(self.kind)

    @cached_property
    def _needs_pae(self) -> bool:
        """A Xen note says it; else a function or table is there that no other kernel has."""
        for note in self.image.notes:
            if (note.owner, note.type) == ("Xen", _PAE_MODE):
                return note.data.startswith(b"yes")
        return not self.symbols.keys().isdisjoint(_PAE_ONLY)

    @cached_property
    def symbols(self) -> Mapping[str, int]:
        """Its symbols; none where they are damaged, without which it boots as well."""
        try:
            return self.image.symbols
        except ImageError:
            return {}

    @property
    def text_range(self) -> tuple[int, int]:
        """The image's section ``.text``; ImageError if it has none."""
        section = self.image.section(".text")
        if section is None:
            raise self.image.error("has none", field=".text")
        return section.address, section.address + section.size

    @property
    def stack_size(self) -> int:
        """THREAD_SIZE of Linux, by width (asm/page_64_types.h, page_32_types.h)."""
        return 16384 if self.image.pointer_size == 8 else 8192

    def direct_map(self, text: GuestText) -> int:
        """Linux's PAGE_OFFSET: what its ``page_offset_base`` says, where it has that and has set it."""
        size = self.image.pointer_size
        symbol = self.symbols.get("page_offset_base")
        try:
            base = text.pointers(symbol, 1, size)[0] if symbol else 0
        except ImageError:
            base = 0
        return base or self._linked_map() or _DIRECT_MAP[size]

    def _linked_map(self) -> int:
        """Where the root that an x86_64 kernel for Xen is linked with maps memory; 0 where none says. 4.20 moved it."""
        root = self.symbols.get("init_level4_pgt") or self.symbols.get("init_top_pgt")
        try:
            entries = self.image.pointers(root, 1 << 9) if root and self.image.pointer_size == _LONG else ()
        except ImageError:
            entries = ()
        # The last entry maps the kernel's image; of the upper half the first is the direct map's.
        first = next((number for number, entry in enumerate(entries[:-1]) if entry and number >= 1 << 8), 0)
        # An entry of the root maps 512 GiB; in the upper half bits 48 to 63 are set (SDM volume 1, 3.3.7.1).
        return first and first << 39 | 0xFFFF << 48

    @cached_property
    def _segments(self) -> tuple[tuple[int, int, int], ...]:
        """Virtual address, bytes and physical address of each; its pages are its own to the last byte."""
        return tuple(
            (each.address, each.memory_size + PAGE - 1 & -PAGE, each.physical)
            for each in self.image.segments
            if each.memory_size
        )

    def physical(self, va: int) -> int:
        """Guest-physical address that a byte is linked to lie at; ImageError if no segment holds it."""
        for address, size, physical in self._segments:
            if 0 <= va - address < size:
                return physical + va - address
        raise self.image.error(f"{va:#x} is in no segment", field="program headers")


def read_kernel(path: Path | str, initrd: Path | str | None = None, cmdline: str = "") -> Kernel:
    """Read a kernel and its initial ramdisk from files.

    Raises:
        ImageError: one of them cannot be read, or the kernel is none.
    """
    ramdisk = read_file(Path(initrd), str(initrd)) if initrd else b""
    return Kernel(load_image(path), ramdisk, cmdline, str(initrd or ""))
