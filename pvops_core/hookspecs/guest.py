"""What a platform is given to run: the built-in guest, or a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import attrs

from pvops_core.kinds import MachineKind, kind_of
from pvops_core.ops import LAYOUTS
from pvops_core.patching.alternatives import AltEntry, read_alternatives
from pvops_core.patching.nops import NOPS, NopKind, NopTable
from pvops_core.patching.sites import SiteRecord, read_sites

if TYPE_CHECKING:
    from pvops_core.images import KernelImage


@attrs.frozen(slots=False)
class GuestImage:
    """A guest that follows the boot protocol of docs/reference/guest.md.

    Attributes:
        layout: name of its layout of ops.
        image: its ELF file.
    """

    layout: str
    image: KernelImage = attrs.field(repr=False)

    @property
    def kind(self) -> MachineKind:
        """The machine that it needs."""
        return LAYOUTS[self.layout].kind

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


@attrs.frozen
class Kernel:
    """A kernel, ready to be put into a machine.

    Attributes:
        image: the unpacked kernel.
        initrd: bytes of the initial ramdisk, as they are in its file; empty for none.
        cmdline: the command line.
    """

    image: KernelImage
    initrd: bytes = attrs.field(default=b"", repr=False)
    cmdline: str = ""

    @property
    def kind(self) -> MachineKind:
        """The machine it needs. A processor with PAE also runs the 32-bit kernels that do not use it."""
        return kind_of(self.image.machine)
