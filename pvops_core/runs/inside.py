"""What was seen inside a kernel's boot: named points, and what was asked to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import UNSET, UnsetType

from pvops_core.records import Count, JsonRecord, Seconds
from pvops_core.runs.orders import HookDone
from pvops_core.session.findings import Patching, Traced

OURS: Final = frozenset({"native", "xen", "lguest"})
"""The project's own backends, whose ops are of all generations: of them it is known which a guest has no use for."""


class BootPoint(JsonRecord, frozen=True):
    """What had been counted when a point was first met.

    Attributes:
        virtual_ns: Virtual time when it was first met, in nanoseconds.
        wall_s: Wall time since the start of the run, in seconds.
        vcpu: The vCPU that met it.
        traps: Traps into the platform until then.
        hypercalls: Hypercalls until then.
        page_table_updates: Page-table entries that the platform wrote or checked until then.
        ports: Reads and writes of I/O ports until then.
    """

    virtual_ns: Count
    wall_s: Seconds
    vcpu: Count
    traps: Count
    hypercalls: Count
    page_table_updates: Count
    ports: Count


class ServedOp(JsonRecord, frozen=True):
    """An op of a real kernel that a backend's hook served, in Python.

    Attributes:
        op: The kernel's path of the op.
        implementation: Backend and hook.
        calls: Calls.
        left: Those of them that it left to the kernel's own function, by reason.
        sites: Patched sites that were put back to calls through the slot.
        originals: The kernel's functions that it stood in place of, in order.
    """

    op: str
    implementation: str
    calls: Count
    left: Mapping[str, Count]
    sites: Count
    originals: tuple[str, ...]


class ServedOps(JsonRecord, frozen=True):
    """The backend's own hooks in a real kernel: which `--ops` has put in force, and which are not used.

    Not there where the backend has none for the kernel's table.

    Attributes:
        backend: The backend.
        served: The ops that its hooks, or those of its bases, served.
        unused: Paths of the ops for which it has a hook that was not used.
        unknown: Hooks that it has for ops that this kernel's table has not got.
    """

    backend: str
    served: tuple[ServedOp, ...]
    unused: tuple[str, ...]
    unknown: tuple[str, ...] = ()


class Inside(JsonRecord, frozen=True):
    """What `pvops boot` was asked to look at inside a kernel; nothing unless asked for.

    Attributes:
        patching: What `--verify-patching` found.
        ops: Who served the kernel's ops.
        hooks: Each `--hook` and what came of it.
        trace: What `--trace` counted and timed.
    """

    patching: Patching | UnsetType = UNSET
    ops: ServedOps | UnsetType = UNSET
    hooks: tuple[HookDone, ...] | UnsetType = UNSET
    trace: Traced | UnsetType = UNSET
