"""The built-in guest as the rest of pvops sees it: an image, where it begins, its sites and its gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path

import attrs

from pvops_core.errors import unknown
from pvops_core.guests.report import FORMAT, REPORT_SYMBOL, Report
from pvops_core.images import KernelImage, load_image
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS as ALL_LAYOUTS
from pvops_core.patching.alternatives import AltEntry, read_alternatives
from pvops_core.patching.nops import NOPS, NopKind, NopTable
from pvops_core.patching.sites import SiteRecord, read_sites

LAYOUTS: tuple[str, ...] = ("2.6.23-lapic", "2.6.23-lapic-pae", "2.6.24", "2.6.24-pae", "6.1-64")
"""Layouts for which there is a built-in guest."""

OBJECTS = Path(__file__).parent / "objects"


@attrs.frozen(slots=False)
class GuestImage:
    """A guest that follows the boot protocol of docs/guest.md.

    Attributes:
        layout: name of its layout of ops.
        image: its ELF file.
    """

    layout: str
    image: KernelImage = attrs.field(repr=False)

    @property
    def kind(self) -> MachineKind:
        """The machine that it needs."""
        return ALL_LAYOUTS[self.layout].kind

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


@cache
def builtin(layout_name: str) -> GuestImage:
    """The built-in guest of a layout; UsageError if there is none."""
    if layout_name not in LAYOUTS:
        raise unknown("built-in guest for layout", layout_name, LAYOUTS)
    path = OBJECTS / f"guest-{layout_name}.elf"
    return GuestImage(layout_name, load_image(path.read_bytes(), f"the built-in guest of {layout_name}"))


def parse_report(guest: GuestImage, read: Callable[[int, int], bytes]) -> Report:
    """What the guest wrote into its report so far.

    Args:
        guest: the guest.
        read: gives bytes of its memory, by virtual address and length.

    Raises:
        MachineError: the report is damaged.
    """
    return Report.unpack(read(guest.symbols[REPORT_SYMBOL], FORMAT.size))
