"""The layout of a kernel's tables from its own type information, where it has some.

``struct paravirt_patch_template`` (arch/x86/include/asm/paravirt_types.h) is ``pv_ops``, in every kernel that has BTF.
Some of its groups have become variables of their own since (7.2): ``pv_ops_lock`` is a ``struct pv_lock_ops``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS, Arg, Clobber, Convention, CType, Layout, Op, Slot
from pvops_core.ops.linux_ages import JUMPS

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.images.btf import Btf, Leaf

TEMPLATE: Final = "paravirt_patch_template"
TABLE: Final = "pv_ops"
CALLEE_SAVE: Final = "paravirt_callee_save"
"""The structure around a slot that is called through a thunk; its one member is ``func``."""

DERIVED: Final = "btf"
"""Name of a layout that is in the image and not in the catalogue."""


Prototype = tuple[CType | None, ...]
"""C types of a result, None for void, and then of the arguments."""


@attrs.frozen
class _Member:
    """A slot as the type information has it.

    Attributes:
        path: the kernel's path of the op.
        symbol: the variable it is in.
        offset: its place there, in bytes.
        thunk: whether it is called through a thunk that keeps registers.
        prototype: how it is called; None where that is not known.
    """

    path: str
    symbol: str
    offset: int
    thunk: bool
    prototype: Prototype | None


def layout_from_types(image: KernelImage) -> Layout | None:
    """The layout that the kernel's type information gives: the catalogue's own where it has the same slots.

    Args:
        image: the kernel; its symbols say which tables it has besides ``pv_ops``.

    Returns:
        The layout; None where the kernel has no type information, or none that describes a table of pointers.
    """
    types, size = image.types, image.pointer_size
    main = _table(types, TEMPLATE, 8 * size) if types is not None else None
    if types is None or main is None:
        return None
    members = [_member(types, leaf, TABLE, "") for leaf in main]
    for symbol, group, leaves in _further(image, types, {leaf.path.partition(".")[0] for leaf in main}):
        members += [_member(types, leaf, symbol, f"{group}.") for leaf in leaves]
    for layout in LAYOUTS.values():
        if layout.pointer_size == size and _is(layout, members):
            return layout
    kind = MachineKind.X86_64 if size == 8 else MachineKind.PAE
    slots = (
        Slot(number, _op(member, kind), member.path, member.symbol, member.offset)
        for number, member in enumerate(members)
    )
    return Layout(DERIVED, kind, tuple(slots), (), 2 * size)


def _is(layout: Layout, members: list[_Member]) -> bool:
    return len(layout.slots) == len(members) and all(
        (slot.path, slot.symbol, slot.offset) == (member.path, member.symbol, member.offset)
        and member.prototype in {None, _declared(slot.op)}
        for slot, member in zip(layout.slots, members, strict=True)
    )


def _declared(op: Op) -> Prototype:
    return (op.result, *(arg.ctype for arg in op.args))


def _table(types: Btf, name: str, bits: int) -> list[Leaf] | None:
    """The members of a structure that is all pointers; None if there is none such."""
    members = types.leaves(name)
    if not members or [member.offset for member in members] != list(range(0, bits * len(members), bits)):
        return None
    return members


def _further(image: KernelImage, types: Btf, inside: set[str]) -> list[tuple[str, str, list[Leaf]]]:
    """Symbol, group and members of each group of ops that is a variable of its own, by address."""
    found = {}
    for symbol, address in image.symbols.items():
        if symbol.startswith(f"{TABLE}_"):
            group = symbol.removeprefix(f"{TABLE}_")
            members = None if group in inside else _table(types, f"pv_{group}_ops", 8 * image.pointer_size)
            if members is not None:
                found[address] = (symbol, group, members)
    return [found[address] for address in sorted(found)]


def _member(types: Btf, leaf: Leaf, symbol: str, prefix: str) -> _Member:
    thunk = leaf.holder == CALLEE_SAVE
    path = prefix + (leaf.path.removesuffix(".func") if thunk else leaf.path)
    return _Member(path, symbol, leaf.offset // 8, thunk, None if thunk else _prototype(types, leaf.type))


def _op(member: _Member, kind: MachineKind) -> Op:
    """The catalogue's op of that path and prototype, or one of which only that is known."""
    known = [
        slot.op
        for layout in LAYOUTS.values()
        for slot in layout.slots
        if slot.path == member.path and layout.pointer_size == kind.pointer_size
    ]
    like = [op for op in known if member.prototype is None or _alike(_declared(op), member.prototype, kind)]
    if like:
        return next((op for op in like if _declared(op) == member.prototype), like[0])
    result, *arguments = member.prototype or (None,)
    name = known[0].name if known else member.path.rpartition(".")[2]
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


def _prototype(types: Btf, type: int) -> Prototype | None:
    """How the function is called that a type points to; None where the width of a type is not known."""
    numbers = types.prototype(type) or []
    spelled = [types.spelling(number) for number in numbers]
    made = [_ctype(name) or _ctype(types.base(number)) for name, number in zip(spelled, numbers, strict=True)]
    understood = all(
        ctype is not None or (name == "void" and not place)
        for place, (name, ctype) in enumerate(zip(spelled, made, strict=True))
    )
    return tuple(made) if made and understood else None


def _ctype(name: str | None) -> CType | None:
    try:
        return CType(name) if name is not None else None
    except ValueError:
        return None
