"""The catalogue: every op with its C signature and calling convention, and each layout's type numbers."""

from pvops_core.ops.abi import Place, Signature, signature
from pvops_core.ops.ctypes import CType
from pvops_core.ops.layouts import LAYOUTS
from pvops_core.ops.model import Arg, Clobber, Convention, Layout, Op, Slot

__all__ = [
    "LAYOUTS",
    "Arg",
    "CType",
    "Clobber",
    "Convention",
    "Layout",
    "Op",
    "Place",
    "Signature",
    "Slot",
    "signature",
]
