"""Kernel images: bytes in, plain data out."""

from pvops_core.images.load import load_image
from pvops_core.images.model import KernelImage, Note, Section, Segment
from pvops_core.images.peek import machine_of
from pvops_core.images.symbols import SymbolTable

__all__ = ["KernelImage", "Note", "Section", "Segment", "SymbolTable", "load_image", "machine_of"]
