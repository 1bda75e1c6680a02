"""Random hypercalls in a Linux that Xen has booted to some moment, the frame table audited after every thousand."""

from __future__ import annotations

import random
from typing import Final

from pvops_xen import backend
from pvops_xen.hypervisor.memory import audit
from pvops_xen.testing.mutation import MutationError, MutationRun

from pvops_core.guests import read_kernel
from pvops_core.session import Session
from soak.tally import NO_KERNELS, Tally, kernels

COUNT: Final = 1_000
STRETCH: Final = 1000
_LINES: Final = ("about to get started", "Freeing unused kernel image", "Run /init", "guest-init: sum 20100")


def play(seed: int) -> Tally:
    """Boot one of the kernels to a line of its console and some time beyond, then make calls."""
    chance = random.Random(f"kernel {seed}")
    there = [path for name, path in sorted(kernels().items()) if "686" not in name]
    if not there:
        return NO_KERNELS
    path, line, processors = there[seed % len(there)], chance.choice(_LINES), chance.choice((1, 2))
    kernel = read_kernel(
        path, path.with_name("initramfs.cpio.gz"), f"console=hvc0 earlyprintk=xen nr_cpus={processors}"
    )
    tally = Tally()
    with Session(kernel, (backend,), vcpus=processors, seed=seed, memory=128 << 20) as session:
        session.platform.until = line.encode()
        stop = session.run(max_seconds=300)
        session.platform.until = b""
        session.run(max_ns=chance.randrange(1, 3_000_000))
        tally.notes[f"{path.name} {line} {stop.reason}"] += 1
        hv = session.platform.hv  # type: ignore[attr-defined]
        cpu = chance.choice([each for each in session.machine.vcpus if not each.halted] or [session.machine.vcpus[0]])
        try:
            tally.count += MutationRun(hv, cpu, seed, stretch=STRETCH).make(COUNT)
        except MutationError as error:
            tally.wrong.append(f"{path.name} at {line!r}: {error}")
        tally.wrong += map(str, audit.audit(hv))
    return tally
