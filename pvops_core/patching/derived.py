"""The layout of a kernel's table from its own type information, where it has some.

``struct paravirt_patch_template`` (arch/x86/include/asm/paravirt_types.h) is the table, in every kernel that has BTF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.images.btf import read_btf
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS, Clobber, Convention, Layout, Op, Slot

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

TEMPLATE: Final = "paravirt_patch_template"
TABLE: Final = "pv_ops"
CALLEE_SAVE: Final = "paravirt_callee_save"
"""The structure around a slot that is called through a thunk; its one member is ``func``."""

DERIVED: Final = "btf"
"""Name of a layout that is in the image and not in the catalogue."""


def layout_from_types(image: KernelImage) -> Layout | None:
    """The layout that the kernel's type information gives: the catalogue's own where it has the same slots.

    Args:
        image: the kernel.

    Returns:
        The layout; None where the kernel has no type information, or none that describes a table of pointers.
    """
    types = read_btf(image)
    members = types.leaves(TEMPLATE) if types is not None else None
    if not members:
        return None
    bits = 8 * image.pointer_size
    if [place for _, _, place in members] != list(range(0, bits * len(members), bits)):
        return None
    names = [
        (path.removesuffix(".func") if holder == CALLEE_SAVE else path, holder == CALLEE_SAVE)
        for path, holder, _ in members
    ]
    paths = [path for path, _ in names]
    for layout in LAYOUTS.values():
        if layout.pointer_size == image.pointer_size and [slot.path for slot in layout.slots] == paths:
            return layout
    slots = tuple(
        Slot(number, _op(path, bits, thunk=thunk), path, TABLE, number * image.pointer_size)
        for number, (path, thunk) in enumerate(names)
    )
    kind = MachineKind.X86_64 if bits == 64 else MachineKind.PAE
    return Layout(DERIVED, kind, slots, (), 2 * image.pointer_size)


def _op(path: str, bits: int, *, thunk: bool) -> Op:
    """The catalogue's op of that path, or one of which only its name and how it is called are known."""
    for layout in LAYOUTS.values():
        known = next((slot.op for slot in layout.slots if slot.path == path), None)
        if known is not None and 8 * layout.pointer_size == bits:
            return known
    plain = Convention.SYSV if bits == 64 else Convention.REGPARM3
    return Op(
        name=path.rpartition(".")[2],
        group=path.partition(".")[0],
        result=None,
        args=(),
        convention=Convention.CALLEE_SAVE if thunk else plain,
        clobbers=Clobber.ANY,
        doc="",
        source=f"struct {TEMPLATE} in the kernel's BTF",
    )
