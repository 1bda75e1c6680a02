"""``pvops patch``: what a kernel makes of its paravirt sites on a backend's platform."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import UNSET
from msgspec.structs import replace

from pvops_core.cli.common import (
    STDOUT,
    ExitCode,
    JsonOption,
    KernelOption,
    PluginOption,
    load_subject,
    print_table,
    progress,
    symbol_json,
    write_file,
    write_json,
)
from pvops_core.cli.options import runoptions
from pvops_core.cli.options.fills import find_fills
from pvops_core.cli.output.against import hold_against
from pvops_core.cli.output.against import show as show_against
from pvops_core.cli.output.alternatives import describe as describe_alternatives
from pvops_core.cli.output.alternatives import find_cpu, show
from pvops_core.errors import UsageError
from pvops_core.images.findings import Image
from pvops_core.patching.findings import LockCounts, PatchCounts, PatchedOp, PatchedSite, PatchResult
from pvops_core.patching.locks import LOCK
from pvops_core.records import like

if TYPE_CHECKING:
    from pvops_core.patching.kernel import KernelPlan

MOST_CPUS = 8192
"""CONFIG_NR_CPUS_RANGE_END of x86."""


def patch(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Kernel to read: bzImage or vmlinux; or a module of one.")
    ],
    *,
    backend: Annotated[str, typer.Option(metavar="NAME", help="Backend whose platform the kernel runs on.")],
    cpus: Annotated[int, typer.Option(min=1, max=MOST_CPUS, metavar="N", help="CPUs that the kernel sees.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the unpacked kernel with its sites (and alternatives) patched."),
    ] = None,
    alternatives: Annotated[
        bool, typer.Option("--alternatives", help="Follow all other alternatives too, feature by feature.")
    ] = False,
    cpu: Annotated[
        str | None,
        typer.Option(
            metavar="CPU",
            help="CPU that --alternatives are followed for: a model of QEMU's (qemu64, max, EPYC, Icelake-Server), "
            "as Linux 6.12 finds it on bare metal, or a file with the record of a boot of this kernel. Without it no "
            "feature is there but those that the platform forces. Of kernels to 5.12 it chooses the nops too, as does "
            "vendor=AuthenticAMD,family=6,model=8.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RECORD",
            help="Hold the result against a record of a boot of this kernel, which `pvops record` makes; with "
            "--alternatives the other places too, for the CPU of that boot unless --cpu names one.",
        ),
    ] = None,
    kernel: KernelOption = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
) -> int:
    """Show what a kernel makes of its call sites.

    Works out, without running the kernel, every paravirt site's bytes after its paravirt step (kernels up to 6.7) and
    after its alternatives, on a backend's platform.

    With --alternatives, every other place that the kernel patches by what its CPU has is worked out as well: jumps,
    calls, padding, retpolines. Where --cpu names a record, it says how many of each kind came out as recorded.

    Exit code: 0 worked out, 2 no kernel, or one that has no table of ops that is known, 4 pvops or a plugin failed, 5
    the record of --against says otherwise.
    """
    from pvops_core.patching.altinstructions.whole import plan_alternatives  # noqa: PLC0415
    from pvops_core.patching.bootrecords import read_record  # noqa: PLC0415
    from pvops_core.patching.kernel import patched_image, plan_kernel, read_kernel  # noqa: PLC0415

    if kernel is not None:
        _refuse_for_modules(output, against)
    if output is not None and output.exists() and file.exists() and output.samefile(file):
        raise UsageError(f"--output {output} is the kernel itself")
    plugins = tuple(plugin or ())
    loaded = runoptions.load(plugins)
    if runoptions.are_broken(loaded, plugins, backend):
        return ExitCode.FAULT
    fills = find_fills(backend, loaded)
    with progress(f"patching {file} for {backend}"):
        image = load_subject(file, kernel)
        record = read_record(against, image) if against is not None else None
        known = find_cpu(str(against) if record is not None and alternatives and cpu is None else cpu, image)
        subject = read_kernel(image)
        if cpu is not None and not alternatives and subject.own is None:
            raise UsageError("--cpu says which alternatives apply: it needs --alternatives")
        plan = plan_kernel(subject, fills, cpus, known.identity)
        whole = plan_alternatives(plan, known.features) if alternatives else None
    result = replace(
        describe(plan, backend, cpus),
        alternatives=describe_alternatives(plan, whole, known) if whole is not None else UNSET,
        against=hold_against(plan, whole, record) if record is not None else UNSET,
    )
    if output is not None:
        write_file(output, patched_image(plan, whole.groups if whole is not None else (), cpus))
    write_json("patch", result, json)
    if json != STDOUT:
        _print(plan, result)
        if result.alternatives:
            show(result.alternatives)
        if result.against:
            show_against(result.against)
    return ExitCode.DIFFERENCE if result.against and not result.against.equal else ExitCode.FINE


def _refuse_for_modules(output: Path | None, against: Path | None) -> None:
    if output is not None:
        raise UsageError("--output is for kernels: a module is linked and patched when it is loaded")
    if against is not None:
        raise UsageError("--against is for kernels: a record says nothing of modules")


def describe(plan: KernelPlan, backend: str, cpus: int) -> PatchResult:
    """The result, without what is asked for besides."""
    image, slots = plan.kernel.image, plan.kernel.layout.slots
    sites = (
        PatchedSite(
            address=f"{planned.site.address:#x}",
            section=planned.site.section,
            op=slots[planned.site.type].path,
            type=planned.site.type,
            length=planned.site.length,
            original=planned.original.hex(),
            paravirt=None if planned.paravirt is None else planned.paravirt.hex(),
            final=planned.final.hex(),
        )
        for planned in plan.sites
    )
    return PatchResult(like(image, Image), backend, cpus, tuple(sites), summarise(plan, cpus))


def _locks(plan: KernelPlan, cpus: int) -> LockCounts | None:
    locks = plan.kernel.locks
    return None if locks is None else LockCounts(len(locks.addresses), f"{locks.byte(cpus):02x}")


def summarise(plan: KernelPlan, cpus: int) -> PatchCounts:
    """How many sites each step made into what, and what each op's slot holds."""
    from pvops_core.patching.altinstructions.alternatives import FEATURES  # noqa: PLC0415 - heavy

    inlined = Counter(planned.site.type for planned in plan.sites if planned.inlined)
    per_type = Counter(planned.site.type for planned in plan.sites)
    direct: Counter[str] = Counter()
    final: Counter[str] = Counter()
    for type_, count in per_type.items():
        direct[plan.kind(type_)] += count
        final[plan.kind(type_)] += count - inlined[type_]
    final["inlined"] = inlined.total()
    image, slots = plan.kernel.image, plan.kernel.layout.slots
    two_steps = "paravirt" in plan.steps
    return PatchCounts(
        sites=len(plan.sites),
        layout=plan.kernel.layout.name,
        features=tuple(sorted(name for name, number in FEATURES.items() if number in plan.features)),
        paravirt={kind: direct[kind] for kind in ("call", "nop", "bug")} if two_steps else None,
        final={kind: final[kind] for kind in ("call", "nop", "bug", "inlined")},
        locks=_locks(plan, cpus),
        ops={
            slots[type_].path: PatchedOp(
                sites=count,
                target=symbol_json(image, plan.table[type_]) if plan.table[type_] else None,
                kind=plan.kind(type_),
                paravirt=plan.kind(type_) if two_steps else None,
                inlined=inlined[type_],
            )
            for type_, count in sorted(per_type.items())
        },
    )


def _print(plan: KernelPlan, result: PatchResult) -> None:
    summary = result.summary
    rows = [
        (op, entry.sites, entry.target or "(empty)", entry.kind, entry.inlined) for op, entry in summary.ops.items()
    ]
    print_table(("op", "sites", "target", "kind", "inlined"), rows)
    for step in plan.steps:
        counts = ", ".join(f"{count} {kind}" for kind, count in getattr(summary, step).items() if count)
        sys.stdout.write(f"{step}: {len(plan.sites)} sites: {counts}\n")
    if summary.locks is not None:
        there = summary.locks.final
        end = "stay" if there == f"{LOCK:x}" else f"become {there}, for one CPU needs none"
        sys.stdout.write(f"locks: {summary.locks.places} prefixes {end}\n")
