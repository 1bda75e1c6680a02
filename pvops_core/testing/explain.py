"""What a failed test shows of its machine: where the CPU is, what changed, how addresses translate, what happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import PvopsError
from pvops_core.machine import GuestFault
from pvops_core.patching.disasm import listing
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


@attrs.frozen(eq=False)
class Scene:
    """What a test ran on.

    Attributes:
        title: what it was and where the test began.
        options: of pytest, for the same again.
        image: the guest.
        machine: its machine.
        console: what the guest has printed.
        began: registers of the first vCPU when the test began.
    """

    title: str
    options: str
    image: KernelImage
    machine: Machine
    console: bytes
    began: Mapping[str, int]


def of_lab(lab: Lab) -> Scene:
    """The scene of a lab."""
    session = lab.session
    options = f"--pvops-backend {lab.cell.backend} --pvops-seed {lab.seed}{lab.cell.choices.options()}"
    title = f"{lab.cell} from point {lab.cell.point!r}"
    return Scene(title, options, session.guest.image, session.machine, bytes(session.platform.console), lab.began)


def of_kernel(kernel: BootedKernel) -> Scene:
    """The scene of a booted kernel."""
    session, recipe = kernel.session, kernel.recipe
    options = f"--pvops-kernel {recipe.image} --pvops-backend {recipe.backend} --pvops-seed {recipe.seed}"
    options += recipe.choices.options()
    title = f"{recipe.image} on {recipe.backend} from {recipe.place!r}"
    image = session.kernel.image
    return Scene(title, options, image, session.machine, bytes(session.platform.console), kernel.began)


def explain(scene: Scene, node: str) -> str:
    """The whole report of a machine as a test left it.

    Args:
        scene: the machine.
        node: the test's node id, for the command that replays it.
    """
    parts = [f"replay: pytest '{node}' {scene.options}", f"{scene.title}; now {scene.machine.clock.ns} ns"]
    for cpu in scene.machine.vcpus:
        parts += _cpu(scene, cpu)
    parts += _changed(scene)
    parts += _walks(scene)
    parts += _events(scene)
    return "\n".join(parts)


def place(image: KernelImage, address: int) -> str:
    """An address as the guest's symbols name it."""
    found = image.symbol_at(address)
    if found is None or found[1] > 0x10000:
        return f"{address:#x}"
    name, distance = found
    return f"{address:#x} <{name}+{distance:#x}>" if distance else f"{address:#x} <{name}>"


def _cpu(scene: Scene, cpu: Vcpu) -> Iterator[str]:
    state = "halted" if cpu.halted else f"level {cpu.cpl}"
    yield f"vcpu {cpu.index} at {place(scene.image, cpu.rip)}, {state}, RSP {cpu.rsp:#x}, RFLAGS {cpu.rflags:#x}"
    if cpu.halted:
        return
    found = scene.image.symbol_at(cpu.rip)
    back = min(found[1], AROUND) if found else 0
    try:
        code = cpu.virtual.read(cpu.rip - back, back + AROUND, system=True)
    except (GuestFault, PvopsError) as error:
        yield f"  no code to show: {error}"
        return
    for address, data, text in listing(code, cpu.rip - back, scene.machine.kind.bits):
        yield f"  {'>' if address == cpu.rip else ' '} {address:#x}  {data.hex(' '):<30} {text}"


def _changed(scene: Scene) -> Iterator[str]:
    now = registers_of(scene.machine.vcpus[0])
    yield "registers that changed since the test began:"
    for name, old in scene.began.items():
        if (new := now[name]) != old:
            yield f"  {name}: {old:#x} -> {new:#x}"


def _walks(scene: Scene) -> Iterator[str]:
    """How the last fault's address and RIP translate."""
    cpu = scene.machine.vcpus[0]
    faults = [dict(event.fields).get("address") for event in scene.machine.log.events if event.kind == "exception"]
    wanted = {address for address in faults[-1:] if isinstance(address, int)} | {cpu.rip}
    for address in sorted(wanted):
        try:
            walk = cpu.walk(address, user=False)
        except GuestFault as fault:
            yield f"page walk of {place(scene.image, address)}: {fault}"
            continue
        entries = ", ".join(f"[{where:#x}] = {entry:#x}" for where, entry in walk.entries)
        yield f"page walk of {place(scene.image, address)}: {entries} -> physical {walk.pa:#x}"


def _events(scene: Scene) -> Iterator[str]:
    events = scene.machine.log.events
    yield f"last events of {len(events)}:"
    yield from (f"  {shown(event)}" for event in events[-EVENTS:])
    said = scene.console.decode(errors="replace").splitlines()
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
