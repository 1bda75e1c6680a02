"""Structures by a kernel's DWARF, where it was linked with debug information and has no BTF (pyelftools reads it).

A kernel's DWARF is large: of all its compilation units the one alone is read in whose source a structure is defined
and used.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import attrs
from elftools.common.exceptions import DWARFError
from elftools.dwarf.dwarf_expr import DWARFExprParser

from pvops_core.images.elf import FAILURES

if TYPE_CHECKING:
    from pvops_core.images.model import KernelImage

INFO: Final = ".debug_info"
_STRUCTURE: Final = "DW_TAG_structure_type"
_NAMES: Final = frozenset({"DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"})
_DEEPEST: Final = 4
_MOST: Final = 1024
"""Members of a structure, those of its own structures included."""


@attrs.frozen
class DwarfMember:
    """A member that is no structure itself.

    Attributes:
        path: its name, behind those of the structures that it is in: ``pv_cpu_ops.lazy_mode.enter``.
        offset: its place in the outermost structure, in bytes.
        holder: name of the structure that it is in; empty if that has none.
    """

    path: str
    offset: int
    holder: str


def structure(image: KernelImage, sources: tuple[str, ...], name: str) -> list[DwarfMember] | None:
    """The members of a structure that one of a kernel's sources knows.

    Args:
        image: the kernel.
        sources: how the source's name may end: ``kernel/paravirt.c``.
        name: the structure's.

    Returns:
        The members, of structures in it too; None where the kernel has no such DWARF, or a damaged one.
    """
    if not image.section_bytes(INFO):
        return None
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 - hardly any kernel has DWARF, and every guest's start asks

    try:
        # An image that is linked has no relocations to do.
        dwarf = ELFFile(BytesIO(image.data)).get_dwarf_info(relocate_dwarf_sections=False)
        for unit in dwarf.iter_CUs():
            top = unit.get_top_DIE()
            # Only units of the right source: reading all takes minutes.
            if _name(top).endswith(sources):
                for entry in top.iter_children():
                    if entry.tag == _STRUCTURE and _name(entry) == name and entry.has_children:
                        return list(_members(entry, "", 0, 0))
    except (*FAILURES, DWARFError, RecursionError):
        return None
    return None


def _name(entry: Any) -> str:  # noqa: ANN401 - pyelftools is untyped
    found = entry.attributes.get("DW_AT_name")
    return found.value.decode("utf-8", "replace") if found is not None else ""


def _place(member: Any) -> int:  # noqa: ANN401 - pyelftools is untyped
    """A member's offset; in DWARF 2, which GCC wrote to 4.7, an expression that adds it to the structure's address."""
    place = member.attributes["DW_AT_data_member_location"].value
    if isinstance(place, int):
        return place
    # The one expression that GCC wrote for it: DW_OP_plus_uconst.
    (step,) = DWARFExprParser(member.cu.structs).parse_expr(place)
    if step.op_name != "DW_OP_plus_uconst":
        raise ValueError("a member that is not at an offset")
    return int(step.args[0])


def _members(entry: Any, path: str, base: int, depth: int) -> Iterator[DwarfMember]:  # noqa: ANN401 - pyelftools is untyped
    for number, child in enumerate(entry.iter_children()):
        if number >= _MOST or depth >= _DEEPEST:
            raise ValueError("a structure of unlikely size")
        if child.tag != "DW_TAG_member":
            continue
        name = _name(child)
        if not (name.isidentifier() and name.isascii()):
            raise ValueError("a member that has no name of C's")
        held, of = path + name, child.get_DIE_from_attribute("DW_AT_type")
        offset = base + _place(child)
        while of.tag in _NAMES:
            of = of.get_DIE_from_attribute("DW_AT_type")
        if of.tag == _STRUCTURE:
            yield from _members(of, f"{held}.", offset, depth + 1)
        else:
            yield DwarfMember(held, offset, _name(entry))
