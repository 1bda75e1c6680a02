"""``python -m benchmarks.returning``: does a saved boot come to the end that it would have come to?

One boot stops at places spread over its virtual time and is never saved. A second one is saved at each of them and
goes on; then each file is loaded in a process of its own and goes on to the end, by way of the places that are left.
All must end alike: the event log's hash, virtual time, blocks, memory, console, text. One line of JSON a kernel,
platform and number of CPUs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
import xxhash

from pvops_core.backends import chain
from pvops_core.backends.loading.loader import load_needed
from pvops_core.guests import read_kernel
from pvops_core.session import Session

FOLDER = Path(os.environ.get("PVOPS_KERNELS", "../shared/kernels"))
KERNELS = (
    "vmlinuz-6.1.0-56-cloud-amd64",
    "vmlinuz-6.12.117+deb12-cloud-amd64",
    "vmlinuz-7.2.13+deb14-cloud-amd64",
)


class ReturningBoot(NamedTuple):
    """What is booted."""

    kernel: str
    initrd: str
    backend: str
    cpus: int


class End(NamedTuple):
    """What a run came to."""

    reason: str
    log: str
    ns: int
    blocks: int
    memory: str
    console: str
    text: str


def _made(subject: ReturningBoot) -> Session:
    backends = load_needed(subject.backend).backends
    kernel = read_kernel(subject.kernel, subject.initrd)
    return Session(kernel, chain(backends[subject.backend], backends), vcpus=subject.cpus)


def _end(session: Session) -> End:
    machine, stop = session.machine, session.run()
    memory, console = (
        xxhash.xxh3_128_hexdigest(each) for each in (machine.memory.array.data, session.platform.console)
    )
    return End(
        stop.reason, machine.log.sha256, machine.clock.ns, machine.blocks, memory, console, session.text_sha256()
    )


def length(subject: ReturningBoot) -> int:
    """Virtual nanoseconds of a boot."""
    with _made(subject) as session:
        session.run()
        return session.machine.clock.ns


def booted(subject: ReturningBoot, places: Iterable[tuple[int, str]]) -> End:
    """The end of a boot that stopped at these times, and was saved to the files beside them."""
    with _made(subject) as session:
        return _through(session, places)


def loaded(file: str, places: Iterable[tuple[int, str]]) -> End:
    """The end of a boot that goes on from a file, and stops at later times."""
    with Session.load(file) as session:
        return _through(session, places)


def _through(session: Session, places: Iterable[tuple[int, str]]) -> End:
    for ns, file in places:
        session.run_to(f"{ns}ns")
        if file:
            session.save(file)
    return _end(session)


def count(subject: ReturningBoot, places: int, folder: str, jobs: int) -> dict[str, object]:
    """Try all places of a boot; what differed, by place in virtual nanoseconds."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        whole = pool.submit(length, subject).result()
        times = [whole * (2 * place + 1) // (2 * places) for place in range(places)]
        unsaved = [(ns, "") for ns in times]
        saved = [(ns, str(Path(folder, str(ns)))) for ns in times]
        first, second = pool.submit(booted, subject, unsaved), pool.submit(booted, subject, saved)
        end, ends = first.result(), {"saving": second.result()}
        later = {str(ns): pool.submit(loaded, file, unsaved[place:]) for place, (ns, file) in enumerate(saved, start=1)}
        ends |= {place: run.result() for place, run in later.items()}
    wrong = {
        place: [field for field, here, there in zip(End._fields, found, end, strict=True) if here != there]
        for place, found in ends.items()
        if found != end
    }
    return {"loads": len(later), "ends": end._asdict(), "different": wrong}


def main(
    kernels: Annotated[list[Path] | None, typer.Argument(help="Kernels; all three generations if not given.")] = None,
    *,
    initrd: Annotated[Path, typer.Option(help="Ramdisk whose init powers off.")] = FOLDER / "initramfs.cpio.gz",
    backends: Annotated[str, typer.Option(help="Platforms, parted by commas.")] = "native,xen",
    cpus: Annotated[str, typer.Option(help="Numbers of CPUs, parted by commas.")] = "1,4",
    places: Annotated[int, typer.Option(min=1, help="Places of each boot.")] = 10,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
) -> None:
    """Count places from which a saved boot comes to the end of one that was never saved."""
    wrong = 0
    for number in map(int, cpus.split(",")):
        for kernel in kernels or [FOLDER / name for name in KERNELS]:
            for backend in backends.split(","):
                subject = ReturningBoot(str(kernel), str(initrd), backend, number)
                with tempfile.TemporaryDirectory(prefix="pvops-returning") as folder:
                    found = count(subject, places, folder, jobs)
                wrong += bool(found["different"])
                told = {"kernel": kernel.name, "backend": backend, "cpus": number, **found}
                sys.stdout.write(f"{json.dumps(told)}\n")
                sys.stdout.flush()
    sys.exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
