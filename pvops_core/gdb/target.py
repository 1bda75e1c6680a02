"""A session's guest as a debugger sees it: vCPUs as threads from 1 on, with registers, memory and places to stop.

What a debugger reads, and where it has the guest stop, leaves the run as it is. What it writes is an event of the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.gdb import memory, registers
from pvops_core.gdb.description import registers as described
from pvops_core.gdb.description import target_xml
from pvops_core.gdb.errors import PacketError
from pvops_core.gdb.monitor import Monitor
from pvops_core.gdb.stopplaces import StopPlaces
from pvops_core.machine import event_kind

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session

_WRITTEN: Final = event_kind(
    "gdb",
    "A debugger wrote to the guest; what it reads, and where it has the guest stop, leaves no trace.",
    what="str: the register's name, or memory",
    address="int: guest-virtual address of what was written of memory, else 0",
    data="bytes: what it is now",
)


class GdbTarget:
    """The guest of one session, while it stands.

    Args:
        session: the session.

    Attributes:
        places: where it is to stop.
        monitor: answers a person's own commands.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._machine = session.machine
        self.places = StopPlaces(session.machine)
        self.monitor = Monitor(session)

    @property
    def threads(self) -> range:
        """All threads."""
        return range(1, len(self._machine.vcpus) + 1)

    def vcpu(self, thread: int) -> Vcpu:
        """The vCPU of a thread; PacketError if there is none."""
        if thread not in self.threads:
            raise PacketError(f"there is no thread {thread}")
        return self._machine.vcpus[thread - 1]

    def about(self, thread: int) -> str:
        """A thread's state in a few words."""
        return self.monitor.state(self.vcpu(thread))

    @property
    def description(self) -> bytes:
        """The target description."""
        return target_xml(self._machine.kind.bits)

    @property
    def thread_list(self) -> bytes:
        """The list of threads (GDB manual, "Thread List Format")."""
        lines = (
            f'<thread id="{thread:x}" core="{thread - 1}" name="vCPU {thread - 1}">{self.about(thread)}</thread>\n'
            for thread in self.threads
        )
        return f'<?xml version="1.0"?>\n<threads>\n{"".join(lines)}</threads>\n'.encode()

    def read_registers(self, thread: int) -> bytes:
        """All registers of a thread."""
        return registers.read_all(self.vcpu(thread))

    def read_register(self, thread: int, number: int) -> bytes:
        """One register; PacketError if there is none of that number."""
        there = described(self._machine.kind.bits)
        if number >= len(there):
            raise PacketError(f"there is no register {number}")
        return registers.read(self.vcpu(thread), there[number])

    def write_register(self, thread: int, number: int, data: bytes) -> None:
        """Set a register; PacketError if that cannot be."""
        there = described(self._machine.kind.bits)
        if number >= len(there):
            raise PacketError(f"there is no register {number}")
        vcpu = self.vcpu(thread)
        if registers.write(vcpu, there[number], data):
            self._machine.breakpoints.displace(vcpu)
            self._machine.log.record(_WRITTEN, vcpu.index, what=there[number].name, address=0, data=data)

    def write_registers(self, thread: int, data: bytes) -> None:
        """Set all registers that differ; PacketError, with those before it set, at one that cannot be."""
        there = described(self._machine.kind.bits)
        if len(data) != (size := sum(each.size for each in there)):
            raise PacketError(f"the registers have {size} bytes, not {len(data)}")
        at = 0
        for number, register in enumerate(there):
            self.write_register(thread, number, data[at : at + register.size])
            at += register.size

    def read_memory(self, thread: int, address: int, length: int) -> bytes:
        """Memory by a thread's page tables; see :func:`pvops_core.gdb.memory.read`."""
        return memory.read(self.vcpu(thread), address, length)

    def write_memory(self, thread: int, address: int, data: bytes) -> None:
        """The same way; see :func:`pvops_core.gdb.memory.write`."""
        vcpu = self.vcpu(thread)
        memory.write(self._session, vcpu, address, data)
        if data:
            self._machine.log.record(_WRITTEN, vcpu.index, what="memory", address=address, data=data)
