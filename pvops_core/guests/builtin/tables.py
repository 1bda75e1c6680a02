"""The guest's header of its ops, ``layout.h``, out of the catalogue: tables, their order and numbers, prototypes.

Slots are words. ``PV_OF_name`` is the wrapper of an op whose arguments are all numbers and addresses; paravirt_32.h and
paravirt_64.h say which of them the guest uses (``PV_OP``), and write those of page-table entries and of special sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.ops import Convention

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind
    from pvops_core.ops import Layout, Slot
    from pvops_core.ops.ctypes import CType

TEMPLATE: Final = "paravirt_patch_template"
"""The struct in whose order slots are numbered, from 2.6.24 on; 2.6.23 has one table and numbers it."""
_HEAD: Final = """/* SPDX-License-Identifier: GPL-2.0 */
/* Made by build.py of pvops_core.ops.LAYOUTS["{name}"]. */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#include "types.h"

typedef unsigned long pv_slot;
"""
_NUMBERS: Final = """
#define PV_SLOT(group, op)	{slot}
#define PV_TYPE(group, op)	(offsetof(struct {order}, {path}) / sizeof(pv_slot))
#define PV_NR_TYPES		(sizeof(struct {order}) / sizeof(pv_slot))
#define PV_DEFINE_TABLES	{tables}

"""
_TAIL: Final = """
#define PV_PRESENT(group, op)	(PV_SLOT(group, op) != 0)

#endif
"""

_BITS: Final = frozenset({"phys_addr_t", "pgprot_t"})
"""Numbers of a page-table entry's width."""

Tree = dict[str, "Tree | None"]
"""Members of a struct: one that is a struct itself has members, a slot has none."""


def table_header(layout: Layout) -> str:
    """The header for the guest of this layout."""
    tables = list(dict.fromkeys(slot.symbol for slot in layout.slots))
    paths = [slot.path for slot in layout.slots]
    boot = _struct("boot_ops", _tree([slot.op.name for slot in layout.boot_hooks]))
    if tables == ["paravirt_ops"]:
        declared, slot, order, path = _struct("paravirt_ops", _tree(paths)), "paravirt_ops.op", "paravirt_ops", "op"
        variables = "struct paravirt_ops paravirt_ops;"
    elif tables == ["pv_ops"]:
        declared, slot, order, path = _struct(TEMPLATE, _tree(paths)), "pv_ops.group.op", TEMPLATE, "group.op"
        variables = f"struct {TEMPLATE} pv_ops;"
    else:
        members = {table: members for table, members in _tree(paths).items() if members}
        declared = "".join(_struct(table, members) for table, members in members.items())
        declared += f"struct {TEMPLATE} {{ {' '.join(f'struct {table} {table};' for table in members)} }};\n"
        slot, order, path = "pv_##group##_ops.op", TEMPLATE, "pv_##group##_ops.op"
        variables = " ".join(f"struct {table} {table};" for table in members)
    externs = "".join(f"extern {each.strip()};\n" for each in variables.split(";") if each.strip())
    wrappers = "".join(_wrapper(slot, layout.kind) for slot in layout.slots)
    numbers = _NUMBERS.format(slot=slot, order=order, path=path, tables=variables)
    boot += "extern struct boot_ops boot_ops;\n"
    return _HEAD.format(name=layout.name) + declared + externs + numbers + wrappers + boot + _TAIL


def _wrapper(slot: Slot, kind: MachineKind) -> str:
    """The line that makes an op's wrapper; empty for data, jumps, and what takes or gives a page-table entry."""
    op = slot.op
    types = [_plain(arg.ctype, kind, "const void *") for arg in op.args]
    if op.result:
        types.insert(0, _plain(op.result, kind, "unsigned long"))  # registers are numbers
    if op.convention in {Convention.NONE, Convention.JUMP} or not all(types) or slot.path.split(".")[-1] != op.name:
        return ""
    result = f"FUNC{len(op.args)}({types.pop(0)}, " if op.result else f"VOID{len(op.args)}("
    group = slot.path.split(".")[0].removeprefix("pv_").removesuffix("_ops") if "." in slot.path else op.group
    return f"#define PV_OF_{op.name}\tPV_{result}{', '.join((group, op.name, *types))})\n"


def _plain(ctype: CType, kind: MachineKind, address: str) -> str:
    """A C type of the guest's that a wrapper has for one of the kernel's; empty if none is as simple."""
    if ctype.pointer:
        return address
    if ctype.name in _BITS:
        return f"u{ctype.bits(kind)}" if ctype.bits(kind) <= kind.bits else ""
    return "" if ctype.name.endswith("_t") or ctype.name.startswith("enum") else ctype.name


def _tree(paths: Sequence[str]) -> Tree:
    """Members in the order in which they are first named."""
    tree: Tree = {}
    for path in paths:
        here, *names = tree, *path.split(".")
        for name in names[:-1]:
            inner = here.setdefault(name, {})
            assert inner is not None
            here = inner
        here[names[-1]] = None
    return tree


def _struct(name: str, members: Tree) -> str:
    return f"struct {name} {{\n{_body(members)}}};\n"


def _body(members: Tree) -> str:
    return "".join(
        f"pv_slot {name};\n" if inner is None else f"struct {{\n{_body(inner)}}} {name};\n"
        for name, inner in members.items()
    )
