"""What a failed test shows of its machine: where the CPU is, what changed, how addresses translate, what happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.errors import PvopsError
from pvops_core.machine import GuestFault
from pvops_core.patching.code.disasm import listing
from pvops_core.testing.changes import registers_of

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine import Event, Machine, Vcpu
    from pvops_core.testing.booted import BootedKernel
    from pvops_core.testing.lab import Lab

AROUND: Final = 24
"""Bytes before and after RIP that are disassembled."""
EVENTS: Final = 10
LINES: Final = 6


def explain(standing: Lab | BootedKernel, node: str) -> str:
    """The whole report of a machine as a test left it.

    Args:
        standing: the machine.
        node: the test's node id, for the command that replays it.
    """
    image, machine = standing.session.guest.image, standing.machine
    parts = [f"replay: pytest '{node}' {standing.options}", f"{standing.title}; now {machine.clock.ns} ns"]
    if fault := standing.session.last_hook_fault:
        parts.append(fault)
    for cpu in machine.vcpus:
        parts += _cpu(image, cpu)
    parts += _changed(standing)
    parts += _walks(image, standing.vcpu)
    parts += _events(machine, bytes(standing.session.platform.console))
    return "\n".join(parts)


def place(image: KernelImage, address: int) -> str:
    """An address as the guest's symbols name it."""
    found = image.symbol_at(address)
    if found is None or found[1] > 0x10000:
        return f"{address:#x}"
    name, distance = found
    return f"{address:#x} <{name}+{distance:#x}>" if distance else f"{address:#x} <{name}>"


def _cpu(image: KernelImage, cpu: Vcpu) -> Iterator[str]:
    state = "halted" if cpu.halted else f"level {cpu.cpl}"
    yield f"vcpu {cpu.index} at {place(image, cpu.rip)}, {state}, RSP {cpu.rsp:#x}, RFLAGS {cpu.rflags:#x}"
    if cpu.halted:
        return
    found = image.symbol_at(cpu.rip)
    back = min(found[1], AROUND) if found else 0
    try:
        code = cpu.virtual.read(cpu.rip - back, back + AROUND, system=True)
    except (GuestFault, PvopsError) as error:
        yield f"  no code to show: {error}"
        return
    for address, data, text in listing(code, cpu.rip - back, cpu.machine.kind.bits):
        yield f"  {'>' if address == cpu.rip else ' '} {address:#x}  {data.hex(' '):<30} {text}"


def _changed(standing: Lab | BootedKernel) -> Iterator[str]:
    now = registers_of(standing.vcpu)
    yield "registers that changed since the test began:"
    for name, old in standing.began.items():
        if (new := now[name]) != old:
            yield f"  {name}: {old:#x} -> {new:#x}"


def _walks(image: KernelImage, cpu: Vcpu) -> Iterator[str]:
    """How the last fault's address and RIP translate."""
    faults = [dict(event.fields).get("address") for event in cpu.machine.log.events if event.kind == "exception"]
    wanted = {address for address in faults[-1:] if isinstance(address, int)} | {cpu.rip}
    for address in sorted(wanted):
        try:
            walk = cpu.walk(address, user=False)
        except GuestFault as fault:
            yield f"page walk of {place(image, address)}: {fault}"
            continue
        entries = ", ".join(f"[{where:#x}] = {entry:#x}" for where, entry in walk.entries)
        yield f"page walk of {place(image, address)}: {entries} -> physical {walk.pa:#x}"


def _events(machine: Machine, console: bytes) -> Iterator[str]:
    events = machine.log.events
    yield f"last events of {len(events)}:"
    yield from (f"  {shown(event)}" for event in events[-EVENTS:])
    said = console.decode(errors="replace").splitlines()
    yield "last lines of the guest's:"
    yield from (f"  {line}" for line in said[-LINES:])


def shown(event: Event) -> str:
    """An event on one line."""
    fields = " ".join(
        f"{name}={value:#x}" if isinstance(value, int) and value > 9 else f"{name}={value!s}"
        for name, value in event.fields
    )
    vcpu = "" if event.vcpu is None else f" vcpu {event.vcpu}"
    return f"{event.ns} ns{vcpu} {event.kind} {fields}".rstrip()
