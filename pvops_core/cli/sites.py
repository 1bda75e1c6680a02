"""``pvops sites``: the paravirt call sites of a kernel."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.cli.common import (
    STDOUT,
    ExitCode,
    JsonOption,
    KernelOption,
    load_subject,
    print_table,
    progress,
    symbol_json,
    write_json,
)
from pvops_core.errors import LayoutError, printable
from pvops_core.images.findings import Image
from pvops_core.patching.findings import ListedSite, SiteCounts, SitesResult
from pvops_core.records import like

if TYPE_CHECKING:
    from pvops_core.images import KernelImage


def sites(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Kernel to read: bzImage or vmlinux; or a module of one.")
    ],
    kernel: KernelOption = None,
    json: JsonOption = None,
) -> int:
    """List a kernel's paravirt call sites.

    Tells section, op, type number, length, address and symbol of each, and how many each op has. Of a module (.ko,
    packed or not) those that it has when it is loaded where modules begin. Where the table of ops fits no known
    layout, the slot that a site calls through stands in place of its op.

    Exit code: 0 listed, 2 no kernel, 3 it has no sites.
    """
    with progress(f"reading {file}"):
        image = load_subject(file, kernel)
        result = describe(image)
    write_json("sites", result, json)
    if not result.sites:
        sys.stderr.write(f"pvops: {printable(image.path)} annotates no call of an op\n")
        return ExitCode.NOTHING
    if result.layout is None:
        sys.stderr.write(f"pvops: {printable(image.path)} has a table of ops that fits no known layout\n")
    if json != STDOUT:
        _print(result)
    return ExitCode.FINE


def describe(image: KernelImage) -> SitesResult:
    """The result.

    Raises:
        ImageError: the sites are damaged.
    """
    from pvops_core.patching.sites import read_sites  # noqa: PLC0415 - heavy
    from pvops_core.patching.tables import find_table, slot_addresses  # noqa: PLC0415

    records = read_sites(image)
    slots = {type_: symbol_json(image, at) for type_, at in slot_addresses(image, records).items()}
    try:
        layout = find_table(image, records).layout if records else None
    except LayoutError:
        layout = None
    ops = {slot.type: slot.path for slot in layout.slots} if layout else {}
    counts = Counter(record.type for record in records)
    return SitesResult(
        image=like(image, Image),
        layout=layout.name if layout else None,
        sites=tuple(
            ListedSite(
                address=f"{record.address:#x}",
                section=record.section,
                op=ops.get(record.type),
                slot=slots.get(record.type, ""),
                type=record.type,
                length=record.length,
                clobbers=record.clobbers,
                symbol=symbol_json(image, record.address),
            )
            for record in records
        ),
        summary=SiteCounts(
            sites=len(records),
            ops={ops.get(type_, slots.get(type_) or f"type {type_}"): count for type_, count in counts.most_common()},
            sections=dict(Counter(record.section for record in records).most_common()),
        ),
    )


def _print(result: SitesResult) -> None:
    columns = ("section", "op", "type", "length", "address", "symbol")
    rows = (
        (site.section, site.op or site.slot, site.type, site.length, site.address, site.symbol) for site in result.sites
    )
    print_table(columns, rows)
    print_table(("op", "sites"), [("", ""), *result.summary.ops.items(), ("all", result.summary.sites)])
