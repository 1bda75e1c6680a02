"""What a failed test shows of its machine: where the CPU is, what changed, how addresses translate, what happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.errors import PvopsError
from pvops_core.machine import GuestFault
from pvops_core.patching.code.disasm import listing
from pvops_core.testing.changes import registers_of

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine import Event, Machine, Vcpu
    from pvops_core.testing.booted import BootedKernel
    from pvops_core.testing.fixtures.keptmachine import KeptMachine

AROUND: Final = 64
"""Bytes after RIP that are read: more than the instructions shown have, so that none is cut."""
BEFORE: Final = 6
AFTER: Final = 4
"""Instructions shown; one has at most 15 bytes."""
_FARTHEST: Final = 0x4000
"""Bytes of a function that are decoded to come to RIP."""
EVENTS: Final = 10
LINES: Final = 6


def explain(standing: KeptMachine | BootedKernel) -> str:
    """The whole report of a machine as a test left it."""
    image, machine = standing.session.guest.image, standing.machine
    parts = [f"{standing.title}; now {machine.clock.ns} ns"]
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
    if cpu.halted and not cpu.rip:
        yield f"vcpu {cpu.index} has not been started"
        return
    state = "halted" if cpu.halted else f"level {cpu.cpl}"
    yield f"vcpu {cpu.index} at {place(image, cpu.rip)}, {state}, RSP {cpu.rsp:#x}, RFLAGS {cpu.rflags:#x}"
    if cpu.halted:
        return
    yield from _code(image, cpu)


def _code(image: KernelImage, cpu: Vcpu) -> Iterator[str]:
    """Whole instructions before and after RIP; those before as they follow from the function's start."""
    found = image.symbol_at(cpu.rip)
    begin = cpu.rip - found[1] if found and found[1] <= _FARTHEST else cpu.rip
    try:
        code = _readable(cpu, begin, cpu.rip + AROUND)
    except (GuestFault, PvopsError) as error:
        yield f"  no code to show: {error}"
        return
    lines = listing(code, begin, cpu.machine.kind.bits)
    if cpu.rip not in {address for address, _data, _text in lines}:
        lines = listing(code[cpu.rip - begin :], cpu.rip, cpu.machine.kind.bits)
    before = [line for line in lines if line[0] < cpu.rip][-BEFORE:]
    after = [line for line in lines if line[0] >= cpu.rip][:AFTER]
    for address, data, text in (*before, *after):
        yield f"  {'>' if address == cpu.rip else ' '} {address:#x}  {data.hex(' '):<30} {text}"


def _readable(cpu: Vcpu, begin: int, end: int) -> bytes:
    """Bytes of code, up to the end of what is mapped."""
    try:
        return cpu.virtual.read(begin, end - begin, system=True)
    except GuestFault:
        page = (cpu.rip | 0xFFF) + 1
        return cpu.virtual.read(begin, page - begin, system=True)


def _changed(standing: KeptMachine | BootedKernel) -> Iterator[str]:
    now = registers_of(standing.vcpu)
    changed = [f"  {name}: {old:#x} -> {new:#x}" for name, old in standing.began.items() if (new := now[name]) != old]
    yield from _under("registers that changed since the test began:", changed)


def _under(heading: str, lines: Sequence[str]) -> Iterator[str]:
    """Lines below their heading; nothing where there are none."""
    if lines:
        yield heading
        yield from lines


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
    yield from _under(f"last events of {len(events)}:", [f"  {shown(event)}" for event in events[-EVENTS:]])
    said = console.decode(errors="replace").splitlines()
    yield from _under("last lines of the guest's:", [f"  {line}" for line in said[-LINES:]])


def shown(event: Event) -> str:
    """An event on one line."""
    fields = " ".join(
        f"{name}={value:#x}" if isinstance(value, int) and value > 9 else f"{name}={value!s}"
        for name, value in event.fields
    )
    vcpu = "" if event.vcpu is None else f" vcpu {event.vcpu}"
    return f"{event.ns} ns{vcpu} {event.kind} {fields}".rstrip()
