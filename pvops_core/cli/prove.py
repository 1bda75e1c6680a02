"""``pvops prove``: a backend's hooks against the functions of a real kernel that they stand for."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import Annotated

import attrs
import typer

from pvops_core.backends.choices import parse_choices
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, PluginOption, progress, write_json
from pvops_core.cli.options import kernels, runoptions
from pvops_core.errors import printable
from pvops_core.runs.plan import choose
from pvops_core.switchboard.choosing import chosen
from pvops_core.testing.proofs import telling
from pvops_core.testing.proofs.document import prove_result
from pvops_core.testing.proofs.proving import Prover
from pvops_core.testing.proofs.subject import Subject

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
        str,
        typer.Option(
            metavar="PLACE",
            help="End the boot there, as for `pvops boot`; at its own end if not given, or without a ramdisk where the "
            "first process begins.",
        ),
    ] = "",
    cpus: runoptions.CpusOption = 1,
    seed: runoptions.SeedOption = 0,
    memory: runoptions.MemoryOption = kernels.DEFAULT_MEMORY,
    max_seconds: Annotated[
        float, typer.Option(min=0.001, metavar="S", help="Seconds of wall time after which the whole command ends.")
    ] = DEFAULT_SECONDS,
    settings: runoptions.SetOption = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
) -> int:
    """Prove hooks against a kernel's own functions.

    Boots the kernel twice: to count its calls of each op, and to stop at a sample of them that the seed decides. In
    each of these states the kernel's own C function makes the call, all is undone, and the backend's hook makes it.
    Compared are result, registers that the convention keeps, flags, memory written, page tables, hypercalls, TLB
    flushes. No interrupt is delivered meanwhile and no other CPU runs.

    When --max-seconds are over, what was found until then is told. Half of them may go to counting.

    Exit code: 0 no difference that is not justified, 5 some, 6 none, but time was up or the guest crashed before the
    boot's end, 3 no state could be tried, 2 the files are no kernel or do not fit the backend, 4 pvops or a plugin
    failed.
    """
    until = monotonic() + max_seconds

    runoptions.check_folders(json)
    plugins = tuple(plugin or ())
    loaded = runoptions.load(plugins)
    if runoptions.are_broken(loaded, plugins, backend):
        return ExitCode.FAULT
    (name,) = choose("backend", [backend], list(loaded.backends))
    subject = attrs.evolve(
        Subject.of(name, loaded.backends, kernel, initrd, cmdline),
        vcpus=cpus,
        seed=seed,
        memory=memory << 20,
        options=parse_choices(settings or ()),
    )
    if stop_at:
        subject = attrs.evolve(subject, stop_at=stop_at)
    with subject.make() as session:
        wanted = frozenset(slot.op.name for slot in chosen(session.known_table.layout, runoptions.names(ops)))
    with progress(f"proving {name} against {kernel.name}"):
        proof = Prover.of(subject, wanted=wanted, states=states, left=lambda: until - monotonic()).prove()
    write_json("prove", prove_result(proof, subject, states), json)
    text = sys.stderr if json == STDOUT else sys.stdout
    for line in telling.lines(proof):
        text.write(f"{printable(line)}\n")
    if proof.unexplained:
        return ExitCode.DIFFERENCE
    if not proof.whole:
        return ExitCode.CRASH
    return ExitCode.FINE if proof.states else ExitCode.NOTHING
