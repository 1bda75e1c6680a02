"""Memory, vCPUs, clock, scheduler, traps and event log of a virtual x86 machine. Knows nothing of pv_ops.

What needs the engine is imported when it is first used: backends name these classes long before a machine is made,
and listing or patching makes none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.kinds import MachineKind
from pvops_core.lazily import lazily
from pvops_core.machine.cpu.faults import GuestFault, PageFault, Reschedule, general_protection, undefined_instruction

if TYPE_CHECKING:
    from pvops_core.machine.bare import BareMetal
    from pvops_core.machine.cpu.memory.paging import ErrorCode, Walk
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.engines import BLOCK_NS, Batch, packed_segment
    from pvops_core.machine.handler import ServedMsr, TrapHandler
    from pvops_core.machine.machine import Machine, Snapshot
    from pvops_core.machine.memory import PhysicalMemory
    from pvops_core.machine.run.breakpoints import Breakpoint
    from pvops_core.machine.run.clock import Clock
    from pvops_core.machine.run.eventkinds import event_kind
    from pvops_core.machine.run.eventlog import Event, EventLog
    from pvops_core.machine.run.gates import Gates
    from pvops_core.machine.run.stateful import Beside, Plain, Stateful
    from pvops_core.machine.run.stops import Stop

_HOMES = {
    "BLOCK_NS": "engines",
    "BareMetal": "bare",
    "Batch": "engines",
    "Beside": "run.stateful",
    "Breakpoint": "run.breakpoints",
    "Clock": "run.clock",
    "ErrorCode": "cpu.memory.paging",
    "Event": "run.eventlog",
    "EventLog": "run.eventlog",
    "Gates": "run.gates",
    "Machine": "machine",
    "PhysicalMemory": "memory",
    "Plain": "run.stateful",
    "ServedMsr": "handler",
    "Snapshot": "machine",
    "Stateful": "run.stateful",
    "Stop": "run.stops",
    "TrapHandler": "handler",
    "event_kind": "run.eventkinds",
    "packed_segment": "engines",
    "Vcpu": "cpu.vcpu",
    "Walk": "cpu.memory.paging",
}


__getattr__ = lazily(__name__, _HOMES)


__all__ = [
    "BLOCK_NS",
    "BareMetal",
    "Batch",
    "Beside",
    "Breakpoint",
    "Clock",
    "ErrorCode",
    "Event",
    "EventLog",
    "Gates",
    "GuestFault",
    "Machine",
    "MachineKind",
    "PageFault",
    "PhysicalMemory",
    "Plain",
    "Reschedule",
    "ServedMsr",
    "Snapshot",
    "Stateful",
    "Stop",
    "TrapHandler",
    "Vcpu",
    "Walk",
    "event_kind",
    "general_protection",
    "packed_segment",
    "undefined_instruction",
]
