"""``pvops prove``: a backend's hooks against the functions of a real kernel that they stand for."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.backends import chain
from pvops_core.backends.choices import parse_choices
from pvops_core.backends.proof import ProofNotes
from pvops_core.cli import kernels, proved, runs
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, PluginOption, image_json, progress, write_json
from pvops_core.errors import SwitchError, UsageError, printable
from pvops_core.guests import Kernel, read_kernel
from pvops_core.runs.plan import choose
from pvops_core.session import Session, hosted
from pvops_core.switchboard.choosing import chosen
from pvops_core.testing.proofs.proving import Prover

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.switchboard.implementations import Implementation

DEFAULT_SECONDS = 3600.0


def prove(
    kernel: Annotated[
        Path,
        typer.Option("--kernel", metavar="KERNEL", help="Kernel to boot: bzImage or ELF, as distributions ship it."),
    ],
    *,
    backend: Annotated[str, typer.Option(metavar="NAME", help="Backend whose hooks are proven.")] = "native",
    ops: Annotated[
        str, typer.Option(metavar="OP,...", help="Ops to prove, such as mmu.write_cr3,irq.*; all unless given.")
    ] = "",
    states: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="States of each op, where the boot has so many.")
    ] = 200,
    initrd: Annotated[Path | None, typer.Option(metavar="FILE", help="Initial ramdisk.")] = None,
    cmdline: Annotated[
        str, typer.Option(metavar="TEXT", help="Command line of the kernel; the platform's console is added.")
    ] = "",
    stop_at: Annotated[
        str, typer.Option(metavar="PLACE", help="End the boot there, as for `pvops boot`; at its own end if not given.")
    ] = "",
    cpus: runs.CpusOption = 1,
    seed: runs.SeedOption = 0,
    memory: runs.MemoryOption = kernels.DEFAULT_MEMORY,
    max_seconds: runs.MaxSecondsOption = DEFAULT_SECONDS,
    settings: runs.SetOption = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
) -> int:
    """Prove a backend's hooks against a kernel's own functions.

    Boots the kernel twice: to count its calls of each op, and to stop at a sample of them that the seed decides. In
    each of these states the kernel's own C function and the backend's hook make the call, in copies of the machine, and
    are compared: result, registers that the convention keeps, flags, memory written, page tables, hypercalls, TLB
    flushes. No interrupt is delivered meanwhile and no other CPU runs.

    Exit code: 0 no difference that is not justified, 5 some, 3 no state could be tried, 2 the files are no kernel or do
    not fit the backend, 4 pvops or a plugin failed.
    """
    runs.check_folders(json)
    plugins = tuple(plugin or ())
    loaded = runs.load(plugins)
    if backend in runs.broken_names(loaded) or runs.broken_paths(loaded, plugins):
        return ExitCode.FAULT
    (name,) = choose("backend", [backend], list(loaded.backends))
    links = chain(loaded.backends[name], loaded.backends)
    image = _guest(kernel, initrd, cmdline, links)
    make = partial(
        Session, image, links, vcpus=cpus, seed=seed, memory=memory << 20, options=parse_choices(settings or ())
    )
    stopping = partial(make, stop_at=stop_at) if stop_at else make
    with make() as session:
        if session.table is None:
            raise UsageError(f"{kernel}: no table of ops is known in it")
        wanted = frozenset(slot.op.name for slot in chosen(session.table.layout, runs.names(ops)))
    with progress(f"proving {name} against {kernel.name}"):
        proof = Prover(
            make=stopping,
            offer=partial(_offer, name),
            notes=ProofNotes.of(link.proof for link in links),
            wanted=wanted,
            states=states,
            seed=seed,
            max_seconds=max_seconds,
        ).prove()
    write_json(
        "prove", {"image": image_json(image.image), "backend": name, **proved.document(proof, states, seed)}, json
    )
    text = sys.stderr if json == STDOUT else sys.stdout
    for line in proved.lines(proof):
        text.write(f"{printable(line)}\n")
    return proved.exit_code(proof)


def _guest(kernel: Path, initrd: Path | None, cmdline: str, links: tuple[Backend, ...]) -> Kernel:
    """The kernel, told of the platform's console unless it is told of one."""
    guest = read_kernel(kernel, initrd, cmdline)
    console = hosted(guest.boot_protocol, guest.kinds, links)[0].console_name
    words = cmdline.split()
    if console and not any(word.startswith("console=") for word in words):
        words.append(f"console={console}")
    return Kernel(guest.image, guest.initrd, " ".join(words))


def _offer(backend: str, session: Session, op: str) -> Implementation | None:
    """The hook that a backend has for an op, itself or by its base."""
    try:
        return session.ops.offered(op, backend)
    except SwitchError:
        return None
