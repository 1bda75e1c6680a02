"""Memory, vCPUs, clock, scheduler, traps and event log of a virtual x86 machine. Knows nothing of pv_ops."""

from pvops_core.machine.bare import BareMetal
from pvops_core.machine.clock import Clock
from pvops_core.machine.eventlog import Event, EventLog
from pvops_core.machine.faults import GuestFault, PageFault, Reschedule, general_protection, undefined_instruction
from pvops_core.machine.gates import Gates
from pvops_core.machine.handler import TrapHandler
from pvops_core.machine.kinds import MachineKind
from pvops_core.machine.machine import Machine, Snapshot, Stateful
from pvops_core.machine.memory import PhysicalMemory
from pvops_core.machine.paging import ErrorCode, Walk
from pvops_core.machine.registers import Batch
from pvops_core.machine.runloop import Stop
from pvops_core.machine.vcpu import Vcpu

__all__ = [
    "BareMetal",
    "Batch",
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
    "Reschedule",
    "Snapshot",
    "Stateful",
    "Stop",
    "TrapHandler",
    "Vcpu",
    "Walk",
    "general_protection",
    "undefined_instruction",
]
