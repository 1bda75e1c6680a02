"""What an annotated call is, whatever the kernel's way of annotating it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.errors import ImageError
    from pvops_core.images import KernelImage


@attrs.frozen
class SiteRecord:
    """One annotated call.

    Attributes:
        address: virtual address of its first byte.
        type: number of its op in the kernel's layout.
        length: bytes that may be replaced.
        clobbers: registers the replacement may destroy, where the generation has it (2.6); else 0 or noise.
        section: name of the section that holds the site.
        place: the record that annotates it, for messages: ``.parainstructions[12]``.
        offset: where that is in the unpacked image; None where that is not known.
    """

    address: int
    type: int
    length: int
    clobbers: int
    section: str
    place: str = attrs.field(default="site", eq=False, repr=False)
    offset: int | None = attrs.field(default=None, eq=False, repr=False)

    def error(self, image: KernelImage, field: str, message: str) -> ImageError:
        """An error about one field of the record, ready to raise."""
        return image.error(message, field=f"{self.place}.{field}", offset=self.offset)
