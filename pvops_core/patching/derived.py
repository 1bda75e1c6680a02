"""The layout of a kernel's tables from its own type information, where it has some.

``struct paravirt_patch_template`` (arch/x86/include/asm/paravirt_types.h) is ``pv_ops``, in every kernel that has BTF.
Some of its groups have become variables of their own since (7.2): ``pv_ops_lock`` is a ``struct pv_lock_ops``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS, Arg, Clobber, Convention, Layout, Op, Slot
from pvops_core.ops.linux_ages import JUMPS
from pvops_core.patching.keptmembers import kept_members
from pvops_core.patching.members import TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.images import KernelImage
    from pvops_core.patching.members import Prototype, TypedSlot

DERIVED: Final = "btf"
"""Name of a layout that is in the image and not in the catalogue."""


def layout_from_types(image: KernelImage) -> Layout | None:
    """The layout that the kernel's type information gives: the catalogue's own where it has the same slots.

    Args:
        image: the kernel; its symbols say which tables it has besides ``pv_ops``.

    Returns:
        The layout; None where the kernel has no type information, or none that describes a table of pointers.
    """
    size, members = image.pointer_size, kept_members(image)
    if members is None:
        return None
    # The catalogue's own layout, where it has the same slots, brings prototypes' names and sources with it.
    for layout in LAYOUTS.values():
        if layout.pointer_size == size and _is(layout, members):
            return layout
    kind = MachineKind.X86_64 if size == 8 else MachineKind.PAE
    slots = (
        Slot(number, _op(member, kind), member.path, member.symbol, member.offset)
        for number, member in enumerate(members)
    )
    return Layout(DERIVED, kind, tuple(slots), (), 2 * size)


def _is(layout: Layout, members: Sequence[TypedSlot]) -> bool:
    return len(layout.slots) == len(members) and all(
        (slot.path, slot.symbol, slot.offset) == (member.path, member.symbol, member.offset)
        and member.prototype in {None, _declared(slot.op)}
        for slot, member in zip(layout.slots, members, strict=True)
    )


def _declared(op: Op) -> Prototype:
    return (op.result, *(arg.ctype for arg in op.args))


def _op(member: TypedSlot, kind: MachineKind) -> Op:
    """The catalogue's op of that path and prototype, or one of which only that is known."""
    known = [
        slot.op
        for layout in LAYOUTS.values()
        for slot in layout.slots
        if slot.path == member.path and layout.pointer_size == kind.pointer_size
    ]
    # A prototype that passes the same things in the same places is the same op, whatever its types are called.
    like = [op for op in known if member.prototype is None or _alike(_declared(op), member.prototype, kind)]
    if like:
        # Exactly that prototype first, since one path's prototype differs between generations.
        return next((op for op in like if _declared(op) == member.prototype), like[0])
    result, *arguments = member.prototype or (None,)
    name = known[0].name if known else member.path.rpartition(".")[2]
    # i386 passes three arguments in registers (regparm(3)), as the whole kernel is built.
    plain = Convention.SYSV if kind is MachineKind.X86_64 else Convention.REGPARM3
    if name in JUMPS:
        plain = Convention.JUMP  # nobody returns from an iret, whatever its type says
    return Op(
        name=name,
        group=member.path.partition(".")[0],
        result=result,
        args=tuple(Arg(f"arg{number}", ctype) for number, ctype in enumerate(arguments, 1) if ctype is not None),
        convention=Convention.CALLEE_SAVE if member.thunk else plain,
        clobbers=Clobber.ANY,
        source=f"struct {TEMPLATE} in the kernel's BTF",
    )


def _alike(one: Prototype, other: Prototype, kind: MachineKind) -> bool:
    """Whether two prototypes pass the same things in the same places, whatever their types are called."""
    shapes = [[each and (each.bits(kind), each.pointer, each.signed) for each in types] for types in (one, other)]
    return shapes[0] == shapes[1]
