"""Guests that go mad: random code in their kernels, on every platform; whatever it is, a guest ends as guests do."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from pvops_xen.testing.programs import PIECES

from pvops_core.backends import load_backends
from pvops_core.session import Session
from pvops_core.testing.points import run_to
from soak.tally import Tally
from tests.patching.test_hostile import resident
from tests.switchboard.storm import cells

if TYPE_CHECKING:
    from pvops_core.machine import Stop

GUESTS: Final = 60
AGAIN: Final = 5
"""Of so many one is made twice, to be the same."""
_NS: Final = 300_000
_GROWTH: Final = 96 << 20
_LENGTH: Final = 40


def play(seed: int) -> Tally:
    """Some guests of one layout on one backend, all from one moment of its boot."""
    chance, tally = random.Random(f"guests {seed}"), Tally()
    places = list(cells())
    cell = places[seed % len(places)]
    with Session.of_builtin(
        cell.layout, cell.backend, backends=load_backends().backends, vcpus=cell.vcpus, seed=seed, memory=8 << 20
    ) as session:
        run_to(session, chance.choice(("entry", "patched", "running")))
        start, before = session.machine.snapshot(), 0
        for number in range(GUESTS):
            # By then all is there that stays from run to run: what grows from now on leaks.
            if number == GUESTS // 5:
                before = resident()
            mad = chance.getrandbits(64)
            ends = []
            for _ in range(2 if number % AGAIN == 0 else 1):
                session.machine.restore(start)
                ends.append(_end(session, mad))
            tally.count += 1
            tally.notes[ends[0].partition(" ")[0]] += 1
            if ends[0].startswith("!") or ends[0] != ends[-1]:
                tally.wrong.append(f"{cell} guest {number} ({mad:#x}): {' then '.join(ends)}")
        if resident() - before > _GROWTH:
            tally.wrong.append(f"{cell}: grew by {resident() - before >> 20} MiB")
    return tally


def _end(session: Session, mad: int) -> str:
    """How one of them ended, and its log's hash; with an exclamation mark where it did not end as a guest does."""
    chance, machine = random.Random(mad), session.machine
    try:
        for vcpu in machine.vcpus:
            code = b"".join(
                chance.choice(PIECES) if chance.randrange(2) else chance.randbytes(chance.randrange(1, 6))
                for _ in range(_LENGTH)
            )
            at = session.guest.text_range[0] + chance.randrange(0x1000)
            place = session.text.machine_address(at)
            machine.memory.write(place, code)
            machine.invalidate([(at, at + len(code))])
            vcpu.rip = at
            names = (
                ("rax", "rbx", "rcx", "rdx", "rsi", "rdi") if machine.kind.bits == 64 else ("eax", "ebx", "ecx", "edx")
            )
            for name in names:
                odd = (0, 1, 17, vcpu.rsp, at, 0xFEE00000, 0xFEC00000, 1 << 31, (1 << machine.kind.bits) - 1)
                vcpu.set(name, chance.choice(odd))
        stop: Stop = session.run(max_ns=_NS, max_seconds=20)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"!{type(error).__name__}: {error}"
    return f"{stop.reason} {machine.log.sha256}"
