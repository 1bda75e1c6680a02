"""``pvops record``: boot a kernel under QEMU and write down what it makes of its own text."""

from __future__ import annotations

import gzip
import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, progress, write_file, write_json
from pvops_core.cli.options.runoptions import check_folders
from pvops_core.errors import printable
from pvops_core.images.findings import Image
from pvops_core.recording.findings import RecordedAlternatives, RecordedBoot, RecordResult
from pvops_core.records import document as as_json
from pvops_core.records import like

if TYPE_CHECKING:
    from pvops_core.recording.moments import RecordedStops, WatchedKernel
    from pvops_core.recording.qemu import Boot

_PACKED = ".gz"


def record(
    kernel: Annotated[Path, typer.Argument(metavar="KERNEL", help="Kernel to boot: bzImage, as it is installed.")],
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="File to write; packed by gzip if its name ends in .gz."),
    ],
    xen: Annotated[
        Path | None,
        typer.Option(metavar="XEN", help="Boot it as the first domain of this hypervisor (xen-4.17-amd64.gz)."),
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="CPUs.")] = 1,
    cpu: Annotated[
        str, typer.Option(metavar="MODEL", help="CPU model of QEMU's, as qemu-system-x86_64 -cpu takes it.")
    ] = "qemu64",
    initrd: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Initial ramdisk: with it the text is looked at once more at the first process."
        ),
    ] = None,
    cmdline: Annotated[str, typer.Option(metavar="TEXT", help="More words of the kernel's command line.")] = "",
    memory: Annotated[int, typer.Option(min=64, metavar="MiB", help="The kernel's memory.")] = 512,
    max_seconds: Annotated[
        float,
        typer.Option(min=1, metavar="S", help="Seconds that the kernel may take from one moment to the next."),
    ] = 300,
    json: JsonOption = None,
) -> int:
    """Record a real boot of a kernel.

    Boots it under QEMU, which translates (no KVM), on bare metal or under Xen; stops it where it patches itself; and
    reads its table of ops, every call site, every place with alternatives and the CPU's features. What is written is
    no prediction: hold one against it with pvops patch --against FILE.

    Exit code: 0 recorded, 2 QEMU is not installed, or a file is no kernel with call sites, 6 the boot did not come so
    far.
    """
    from pvops_core.images import load_image  # noqa: PLC0415 - heavy
    from pvops_core.recording.document import describe  # noqa: PLC0415
    from pvops_core.recording.moments import read_subject  # noqa: PLC0415
    from pvops_core.recording.qemu import Boot, find_qemu  # noqa: PLC0415
    from pvops_core.recording.stub import RecordingError  # noqa: PLC0415

    check_folders(output, json)
    find_qemu()
    subject = read_subject(load_image(kernel))
    boot = Boot(kernel=kernel, initrd=initrd, xen=xen, cpu=cpu, cpus=cpus, memory=memory, words=cmdline)
    try:
        seen = _watch(boot, subject, max_seconds)
    except RecordingError as failure:
        sys.stderr.write(f"pvops: {printable(str(failure))}\n")
        return ExitCode.CRASH
    document = {"run": output.name.partition(".")[0], **describe(subject, seen), "boot": as_json(_boot(boot))}
    text = (dumps(document) + "\n").encode()
    write_file(output, gzip.compress(text, mtime=0) if output.suffix == _PACKED else text)
    result = _result(subject, seen, output, boot)
    write_json("record", result, json)
    if json != STDOUT:
        _print(result)
    return ExitCode.FINE


def _watch(boot: Boot, subject: WatchedKernel, seconds: float) -> RecordedStops:
    from pvops_core.recording.moments import Watcher  # noqa: PLC0415 - heavy
    from pvops_core.recording.qemu import machine  # noqa: PLC0415

    with progress(f"booting {boot.kernel} under QEMU"), machine(boot, seconds) as stub:
        return Watcher(stub, subject).watch(init=boot.initrd is not None)


def _boot(boot: Boot) -> RecordedBoot:
    return RecordedBoot(
        platform="xen" if boot.xen else "native",
        cpus=boot.cpus,
        cpu=boot.cpu,
        memory_mib=boot.memory,
        cmdline=boot.command_line,
    )


def _result(subject: WatchedKernel, seen: RecordedStops, output: Path, boot: Boot) -> RecordResult:
    originals = [subject.image.read(group.address, group.length) for group in subject.groups]
    changed = sum(code != original for code, original in zip(seen.groups["final"], originals, strict=True))
    return RecordResult(
        image=like(subject.image, Image),
        boot=_boot(boot),
        record=str(output),
        layout=subject.layout.name,
        sites=len(subject.sites),
        alternatives=RecordedAlternatives(groups=len(subject.groups), changed=changed),
        moments=tuple(name for name, _address in seen.log),
    )


def _print(result: RecordResult) -> None:
    groups = result.alternatives
    sys.stdout.write(f"came to: {', '.join(result.moments)}\n")
    sys.stdout.write(f"{result.record}: {result.sites} sites; {groups.groups} places with alternatives, ")
    sys.stdout.write(f"of which {groups.changed} changed\n")
