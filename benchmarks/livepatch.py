"""Live patching: the quiet zone and the whole rendezvous on 1, 8 and 72 vCPUs, beside bare invalidation on as many."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks import rig
from benchmarks.measure import Result
from pvops_core.livepatch.control.manager import Livepatch
from pvops_core.livepatch.guest import PatchedGuest
from pvops_core.livepatch.payload.area import PayloadArea
from pvops_core.livepatch.payload.builder import PayloadBuilder
from pvops_core.livepatch.payload.loading import load
from pvops_core.livepatch.payload.model import Command
from pvops_core.livepatch.rendezvous import action
from pvops_core.machine.unicorn.llvm.allengines import AllEngines
from pvops_core.patching.poke import Poker

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Machine

AIM_US = 100.0
VCPUS = (1, 8, 72)
ROUNDS = 100
FUNCTION, AREA, AREA_PAGES = 0x20000, 0x40000, 16
ID = b"benchmark"
# f: mov eax, 1; ret        l: sti; call f; jmp l
BODY = bytes.fromhex("b801000000c3")
LOOP = b"\xfb\xe8" + (FUNCTION - (rig.TEXT + 6)).to_bytes(4, "little") + b"\xeb\xf8"


def patched(machine: Machine) -> Livepatch:
    """A machine whose vCPUs all call one function for ever, and a payload that replaces it."""
    machine.memory.write(FUNCTION, BODY)
    rig.start(machine, LOOP)
    for vcpu in machine.vcpus:
        vcpu.rsp = 0x80000 + 0x1000 * vcpu.index
    guest = PatchedGuest(
        machine=machine,
        poker=Poker(machine, lambda page: page),
        translate=lambda page: page,
        symbols={"f": FUNCTION},
        build_id=ID,
        area=PayloadArea(AREA, AREA_PAGES),
        stack_size=0x1000,
    )
    made = PayloadBuilder(machine.kind, build_id=b"payload", depends=ID, host=ID)
    made.text("g", bytes.fromhex("b802000000c3"))
    made.replace("f", "g", old_size=len(BODY))
    livepatch = Livepatch(guest, load)
    livepatch.registry.upload("payload", made.build())
    return livepatch


class Timed:
    """The time that the act in the quiet zone takes, whenever there is one."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.perform = action.perform

    def __call__(self, *arguments: object) -> None:
        """As ``action.perform``."""
        start = perf_counter()
        self.perform(*arguments)  # type: ignore[arg-type]
        self.seconds.append(perf_counter() - start)


def toggle(livepatch: Livepatch, machine: Machine) -> None:
    """Apply, or revert if it is applied; runs until that is over."""
    registry = livepatch.registry
    registry.action("payload", Command.REVERT if registry.applied else Command.APPLY)
    while registry.work is not None:
        machine.run(max_ns=1000)


def least(action: Callable[[], object], rounds: int) -> float:
    """Microseconds of the fastest of many rounds, one right after the other."""
    found = []
    for _ in range(rounds):
        start = perf_counter()
        action()
        found.append(perf_counter() - start)
    return min(found) * 1e6


def bare(machine: Machine) -> Callable[[], None]:
    """The library's own call for each engine, in a native loop: what no live patch can do without."""
    engines = [slot.engine for slot in machine._slots]  # noqa: SLF001 - the floor is below the machine
    return partial(AllEngines(engines).drop, FUNCTION, FUNCTION + 5)


def called(machine: Machine) -> None:
    """The same by a call from Python for each."""
    for slot in machine._slots:  # noqa: SLF001 - the floor is below the machine
        slot.engine.remove_code(FUNCTION, FUNCTION + 5)


def run() -> Iterator[Result]:
    """Three rows for each number of vCPUs."""
    for vcpus in VCPUS:
        with rig.machine(vcpus=vcpus) as machine:
            livepatch = patched(machine)
            machine.run(max_ns=100_000 * vcpus)
            yield from rows(vcpus, machine, livepatch)


def rows(vcpus: int, machine: Machine, livepatch: Livepatch) -> Iterator[Result]:
    """Measure some actions of one machine."""
    floor, calls = least(bare(machine), 2 * ROUNDS), least(partial(called, machine), 2 * ROUNDS)
    of = f"one place on {vcpus} bare engines: {floor:.1f} us ({calls:.1f} by calls)"
    coherent = least(partial(machine.invalidate, [(FUNCTION, FUNCTION + 5)]), 2 * ROUNDS)
    timed = Timed()
    action.perform = timed  # type: ignore[assignment]
    try:
        whole = least(partial(toggle, livepatch, machine), ROUNDS)
    finally:
        action.perform = timed.perform
    quiet = min(timed.seconds) * 1e6
    yield Result(f"live patch, invalidation everywhere, {vcpus} vCPUs", coherent, "us", AIM_US, of=of)
    yield Result(f"live patch, quiet zone, {vcpus} vCPUs", quiet, "us", AIM_US, of=of)
    yield Result(f"live patch, request to end, {vcpus} vCPUs", whole, "us", AIM_US * 10, of=of)
