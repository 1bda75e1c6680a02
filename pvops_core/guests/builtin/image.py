"""The built-in guest's images: which there are, and what each says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import attrs

from pvops_core import ops
from pvops_core.errors import MachineError, unknown
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.patching.altinstructions.alternatives import AltEntry, read_alternatives
from pvops_core.patching.code.nops import NOPS, NopKind, NopTable
from pvops_core.patching.sites import SiteRecord, read_sites

if TYPE_CHECKING:
    from pvops_core.guest import GuestText
    from pvops_core.images import KernelImage

LAYOUTS: tuple[str, ...] = ("2.6.23-lapic", "2.6.23-lapic-pae", "2.6.24", "2.6.24-pae", "6.1-64")
"""Layouts for which there is a built-in guest."""
OBJECTS = Path(__file__).parent / "objects"
BOOT_PROTOCOL = "builtin"
"""That of docs/reference/guest.md."""


@attrs.frozen(slots=False)
class BuiltinGuest:
    """A guest that follows the boot protocol of docs/reference/guest.md.

    Attributes:
        layout: name of its layout of ops.
        image: its ELF file.
        cmdline: its command line.
    """

    boot_protocol: ClassVar[str] = BOOT_PROTOCOL
    default_memory: ClassVar[int] = 16 << 20
    slice_blocks: ClassVar[int] = 10_000

    layout: str
    image: KernelImage = attrs.field(repr=False)
    cmdline: str = ""

    @property
    def kind(self) -> MachineKind:
        """The machine that it needs."""
        return ops.LAYOUTS[self.layout].kind

    @property
    def kinds(self) -> tuple[MachineKind, ...]:
        """That one alone."""
        return (self.kind,)

    @property
    def entry(self) -> int:
        """Virtual address where the first vCPU begins."""
        return self.image.entry

    @property
    def symbols(self) -> Mapping[str, int]:
        """Its symbols; field offsets such as ``mm_pgd_offset`` are among them."""
        return self.image.symbols

    @cached_property
    def sites(self) -> tuple[SiteRecord, ...]:
        """Its annotated calls."""
        return read_sites(self.image)

    @cached_property
    def alternatives(self) -> tuple[AltEntry, ...]:
        """Its ALTERNATIVE entries; none on i386."""
        return read_alternatives(self.image)

    @property
    def kernel_base(self) -> int:
        """Virtual address of physical 0."""
        return self.symbols["kernel_base"]

    @property
    def stack_size(self) -> int:
        """Bytes of a kernel stack, to which it is aligned (``STACK_SIZE``)."""
        return self.symbols["stack_size"]

    def direct_map(self, _text: GuestText) -> int:
        """All of its memory is mapped from ``kernel_base`` on."""
        return self.kernel_base

    @property
    def gates_address(self) -> int:
        """Virtual address of the first gate."""
        return self.symbols["pvops_gates"]

    @property
    def gate_count(self) -> int:
        """Gates that its two pages hold; the last place is left for the return that they share."""
        return self.symbols["gate_count"] - 1

    @property
    def nops(self) -> NopTable:
        """The nops that it pads patched sites with, on the machine's CPU."""
        return NOPS[NopKind.MODERN_64 if self.kind is MachineKind.X86_64 else NopKind.GENERIC]

    @property
    def text_range(self) -> tuple[int, int]:
        """Virtual addresses of the first byte of its text and the first after it: all that patching may change."""
        return self.symbols["_text"], self.symbols["_etext"]

    def physical(self, va: int) -> int:
        """Guest-physical address of a virtual one: all of its memory is mapped from ``kernel_base`` on.

        Raises:
            MachineError: it is below that.
        """
        if va < self.kernel_base:
            raise MachineError(f"{va:#x} is below the kernel's image")
        return va - self.kernel_base


@cache
def builtin_guest(layout: str, cmdline: str = "") -> BuiltinGuest:
    """The built-in guest of a layout; UsageError if there is none."""
    if layout not in LAYOUTS:
        raise unknown("built-in guest for layout", layout, LAYOUTS)
    return BuiltinGuest(layout, _image(layout), cmdline)


@cache
def _image(layout: str) -> KernelImage:
    data = (OBJECTS / f"guest-{layout}.elf").read_bytes()
    return load_image(data, f"the built-in guest of {layout}")
