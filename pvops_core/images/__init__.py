"""Kernel images: bytes in, plain data out.

Readers are imported when the first is used: whoever only asks which machine a kernel is for needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.lazily import lazily

if TYPE_CHECKING:
    from pvops_core.images.load import load_image
    from pvops_core.images.model import KernelImage, Note, Section, Segment
    from pvops_core.images.peek import machine_of
    from pvops_core.images.symboltable import SymbolTable

_HOMES = {
    "KernelImage": "model",
    "Note": "model",
    "Section": "model",
    "Segment": "model",
    "SymbolTable": "symbols",
    "load_image": "load",
    "machine_of": "peek",
}


__getattr__ = lazily(__name__, _HOMES)


__all__ = ["KernelImage", "Note", "Section", "Segment", "SymbolTable", "load_image", "machine_of"]
