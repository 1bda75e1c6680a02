"""The slots that a distribution's kernel describes, kept on disk: to go through its type information takes 0.2 s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from pvops_core.images.btf import SECTION
from pvops_core.kept import Kept
from pvops_core.ops import CType
from pvops_core.patching.members import TypedSlot, read_members

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.images import KernelImage
    from pvops_core.patching.members import Prototype

WORTH: Final = 1 << 20
"""Bytes of type information from which on what it says is kept."""
_MAKERS: Final = ("images/btf", "images/symbols", "images/kallsyms", "patching/members", "ops/ctypes")
_KEPT: Final = Kept("members", _MAKERS, 16)


class _KeptMember(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A slot as it is kept: types by name, None for void."""

    path: str
    symbol: str
    offset: Annotated[int, msgspec.Meta(ge=0)]
    thunk: bool
    prototype: tuple[str | None, ...] | None


def kept_members(image: KernelImage) -> Sequence[TypedSlot] | None:
    """The slots of an image by type number; None as for :func:`~pvops_core.patching.members.read_members`."""
    section = image.section(SECTION)
    # Small type information is read as quickly as the file that would keep it.
    if section is None or section.size < WORTH:
        return read_members(image)
    found = _KEPT.read(image.sha256)
    members = _members(found[1]) if found else None
    if members is None:
        members = read_members(image)
        # None is not kept: it costs nothing to find again.
        if members is not None:
            _KEPT.write(image.sha256, b"", msgspec.msgpack.encode([_row(member) for member in members]))
    return members


def _members(data: bytes) -> list[TypedSlot] | None:
    try:
        return [
            TypedSlot(row.path, row.symbol, row.offset, row.thunk, _prototype(row.prototype))
            for row in msgspec.msgpack.decode(data, type=list[_KeptMember])
        ]
    except ValueError:
        return None


def _prototype(names: tuple[str | None, ...] | None) -> Prototype | None:
    return None if names is None else tuple(None if name is None else CType(name) for name in names)


def _row(member: TypedSlot) -> _KeptMember:
    types = member.prototype
    names = None if types is None else tuple(None if ctype is None else ctype.name for ctype in types)
    return _KeptMember(member.path, member.symbol, member.offset, member.thunk, names)
