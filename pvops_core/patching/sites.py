"""The call sites of a kernel: one notion for all generations, each of which has a reader.

* to 6.7, ``.parainstructions`` lists them (:mod:`.parainstructions`), with clobbers in 2.6 and without later;
* from 6.8 on they are ALTERNATIVEs with a direct call (:mod:`.directcalls`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from pvops_core.patching.code.operands import slot_operand
from pvops_core.patching.directcalls import read_direct_calls
from pvops_core.patching.parainstructions import SECTION, SITE_LIMIT, read_parainstructions
from pvops_core.patching.records import SiteRecord

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

__all__ = ["SECTION", "SITE_LIMIT", "SiteRecord", "read_sites", "slot_operand"]

_READERS: Final = (read_parainstructions, read_direct_calls)
_FOUND: WeakKeyDictionary[KernelImage, tuple[SiteRecord, ...]] = WeakKeyDictionary()
"""Of images that are in use: a boot asks for the sites many times, and reading those of a kernel takes 20 ms."""


def read_sites(image: KernelImage) -> tuple[SiteRecord, ...]:
    """All sites of an image, in the order of the section that annotates them; empty if nothing does.

    Raises:
        ImageError: a record is damaged, is not in executable text, or calls through no table of ops.
    """
    if image not in _FOUND:
        _FOUND[image] = next((found for reader in _READERS if (found := reader(image))), ())
    return _FOUND[image]
