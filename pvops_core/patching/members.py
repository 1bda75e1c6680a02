"""The slots of a kernel's tables as its own type information has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.ops import CType

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.images.btf import Btf, Leaf

TEMPLATE: Final = "paravirt_patch_template"
TABLE: Final = "pv_ops"
CALLEE_SAVE: Final = "paravirt_callee_save"
"""The structure around a slot that is called through a thunk; its one member is ``func``."""

Prototype = tuple[CType | None, ...]
"""C types of a result, None for void, and then of the arguments."""


@attrs.frozen
class TypedSlot:
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


def read_members(image: KernelImage) -> list[TypedSlot] | None:
    """The slots by type number; None where no type information describes a table of pointers.

    Args:
        image: the kernel; its symbols say which tables it has besides ``pv_ops``.
    """
    # Bits of BTF are offsets in bits.
    types = image.types
    main = _table(types, TEMPLATE, 8 * image.pointer_size) if types is not None else None
    if types is None or main is None:
        return None
    members = [_member(types, leaf, TABLE, "") for leaf in main]
    for symbol, group, leaves in _further(image, types, {leaf.path.partition(".")[0] for leaf in main}):
        members += [_member(types, leaf, symbol, f"{group}.") for leaf in leaves]
    return members


def _table(types: Btf, name: str, bits: int) -> list[Leaf] | None:
    """The members of a structure that is all pointers; None if there is none such."""
    members = types.leaves(name)
    # A table of ops is pointers one behind the other, and nothing else.
    if not members or [member.offset for member in members] != list(range(0, bits * len(members), bits)):
        return None
    return members


def _further(image: KernelImage, types: Btf, inside: set[str]) -> list[tuple[str, str, list[Leaf]]]:
    """Symbol, group and members of each group of ops that is a variable of its own, by address."""
    found = {}
    for symbol, address in image.symbols.items():
        # pv_ops_lock and its like: each is a group that has become a variable of its own (7.2).
        if symbol.startswith(f"{TABLE}_"):
            group = symbol.removeprefix(f"{TABLE}_")
            members = None if group in inside else _table(types, f"pv_{group}_ops", 8 * image.pointer_size)
            if members is not None:
                found[address] = (symbol, group, members)
    return [found[address] for address in sorted(found)]


def _member(types: Btf, leaf: Leaf, symbol: str, prefix: str) -> TypedSlot:
    thunk = leaf.holder == CALLEE_SAVE
    path = prefix + (leaf.path.removesuffix(".func") if thunk else leaf.path)
    # A thunk's type is a structure around the function, so its prototype is not said there.
    return TypedSlot(path, symbol, leaf.offset // 8, thunk, None if thunk else _prototype(types, leaf.type))


def _prototype(types: Btf, type: int) -> Prototype | None:
    """How the function is called that a type points to; None where the width of a type is not known."""
    numbers = types.prototype(type) or []
    spelled = [types.spelling(number) for number in numbers]
    made = [_ctype(name) or _ctype(types.base(number)) for name, number in zip(spelled, numbers, strict=True)]
    understood = all(
        # void is a result only; as an argument it would be a type that was not understood.
        ctype is not None or (name == "void" and not place)
        for place, (name, ctype) in enumerate(zip(spelled, made, strict=True))
    )
    return tuple(made) if made and understood else None


def _ctype(name: str | None) -> CType | None:
    try:
        return CType(name) if name is not None else None
    except ValueError:
        return None
