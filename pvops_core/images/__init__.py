"""Kernel images: bytes in, plain data out.

Readers are imported when the first is used: whoever only asks which machine a kernel is for needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvops_core.images.load import load_image
    from pvops_core.images.model import KernelImage, Note, Section, Segment
    from pvops_core.images.peek import machine_of
    from pvops_core.images.symbols import SymbolTable

_HOMES = {
    "KernelImage": "model",
    "Note": "model",
    "Section": "model",
    "Segment": "model",
    "SymbolTable": "symbols",
    "load_image": "load",
    "machine_of": "peek",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


__all__ = ["KernelImage", "Note", "Section", "Segment", "SymbolTable", "load_image", "machine_of"]
