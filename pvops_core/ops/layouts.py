"""The tables themselves: which op has which type number in which generation of kernels.

Orders are those of the structs in the headers that ``linux_2_6``, ``linux_6_1`` and their successors name, for kernels
without CONFIG_HIGHPTE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from types import MappingProxyType

import attrs

from pvops_core.kinds import MachineKind
from pvops_core.ops import linux_2_6, linux_6_1, linux_6_12, linux_7_2
from pvops_core.ops.boot import boot_hooks
from pvops_core.ops.model import Convention, Layout, Op, Slot

_PATHS = {
    "cpu_lazy_mode_enter": "lazy_mode.enter",
    "cpu_lazy_mode_leave": "lazy_mode.leave",
    "mmu_lazy_mode_enter": "lazy_mode.enter",
    "mmu_lazy_mode_leave": "lazy_mode.leave",
    "mmu_lazy_mode_flush": "lazy_mode.flush",
    "lock_wait": "wait",
    "lock_kick": "kick",
}
"""Paths below the group of those ops whose hook name is not the kernel's."""


def _layout(name: str, kind: MachineKind, slots: Iterable[Slot], convention: Convention, record_size: int) -> Layout:
    table = tuple(slots)
    taken = frozenset(slot.op.name for slot in table)
    return Layout(name, kind, table, boot_hooks(taken, convention, kind.pointer_size), record_size)


def _seed(name: str, *, lapic: bool = False, pae: bool = False) -> Layout:
    ops = linux_2_6.seed(lapic=lapic, pae=pae)
    slots = (Slot(n, op, op.name, "paravirt_ops", 4 * n) for n, op in enumerate(ops))
    return _layout(name, MachineKind.PAE if pae else MachineKind.I386, slots, Convention.REGPARM3, 8)


def _split(name: str, *, lapic: bool = True, pae: bool = False) -> Layout:
    ops = linux_2_6.split(lapic=lapic, pae=pae)
    slots: list[Slot] = []
    for group, members in groupby(ops, key=lambda op: op.group):
        symbol, first = f"pv_{group}_ops", len(slots)
        for op in members:
            path = f"{symbol}.{_PATHS.get(op.name, op.name)}"
            slots.append(Slot(len(slots), op, path, symbol, 4 * (len(slots) - first)))
    return _layout(name, MachineKind.PAE if pae else MachineKind.I386, slots, Convention.REGPARM3, 8)


def _template(
    name: str, kind: MachineKind, ops: Iterable[Op], convention: Convention, *, annotated: bool = True
) -> Layout:
    size = kind.pointer_size
    slots = (Slot(n, op, f"{op.group}.{_PATHS.get(op.name, op.name)}", "pv_ops", size * n) for n, op in enumerate(ops))
    return _layout(name, kind, slots, convention, 2 * size if annotated else 0)


def _with_own_locks(layout: Layout) -> Layout:
    """The layout of 7.2: lock ops in a table of their own, and one op of lazy MMU mode left, which has no struct."""
    first = next(slot.type for slot in layout.slots if slot.path.startswith("lock."))
    moved = tuple(
        attrs.evolve(slot, symbol="pv_ops_lock", offset=slot.offset - first * layout.pointer_size)
        if slot.type >= first
        else attrs.evolve(slot, path=slot.path.replace("lazy_mode.", "lazy_mode_"))
        for slot in layout.slots
    )
    return attrs.evolve(layout, slots=moved)


_SYSV = linux_6_1.ops(Convention.SYSV).values()
_SYSV_6_12 = linux_6_12.ops(Convention.SYSV).values()
_SYSV_7_2 = linux_7_2.ops(Convention.SYSV).values()
_REGPARM3 = [op for op in linux_6_1.ops(Convention.REGPARM3).values() if op.name in linux_6_1.WITHOUT_XXL]

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            _seed("2.6.23"),
            _seed("2.6.23-lapic", lapic=True),
            _seed("2.6.23-pae", pae=True),
            _seed("2.6.23-lapic-pae", lapic=True, pae=True),
            _split("2.6.24"),
            _split("2.6.24-pae", pae=True),
            _split("2.6.24-nolapic", lapic=False),
            _split("2.6.24-nolapic-pae", lapic=False, pae=True),
            _template("6.1-64", MachineKind.X86_64, _SYSV, Convention.SYSV),
            _template("6.1-32", MachineKind.PAE, _REGPARM3, Convention.REGPARM3),
            _template("6.12-64", MachineKind.X86_64, _SYSV_6_12, Convention.SYSV, annotated=False),
            _with_own_locks(_template("7.2-64", MachineKind.X86_64, _SYSV_7_2, Convention.SYSV, annotated=False)),
        )
    }
)
"""Every layout by name. The 2.6.23 and 2.6.24 names say which configuration options add slots."""
