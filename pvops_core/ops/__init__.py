"""The catalogue: every op, its C signature, calling convention and clobbers, and the type numbers of each kernel layout."""

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
