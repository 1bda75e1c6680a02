"""``pvops symbols``: a kernel's symbols and frames in a file that debuggers read."""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, progress, write_file, write_json
from pvops_core.cli.options.runoptions import check_folders
from pvops_core.errors import UsageError, printable
from pvops_core.guest.debugfile.findings import SymbolsResult
from pvops_core.images.findings import Image
from pvops_core.records import like


def symbols(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Kernel to read: bzImage or vmlinux.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    offset: Annotated[
        str,
        typer.Option(
            metavar="BYTES",
            help="How much further on the kernel is than it was linked, 0x1d000000 for example. pvops moves none; a "
            "machine with KASLR does.",
        ),
    ] = "0",
    json: JsonOption = None,
) -> int:
    """Write a kernel's symbols for debuggers.

    An ELF file without text: the kernel's sections, the symbols of kallsyms with types and sizes, and .debug_frame made
    of its ORC tables, so that gdb's break and backtrace work on the stripped kernel of a distribution (gdb FILE, or
    symbol-file FILE in gdb). A kernel without ORC, as those of i386 are, has symbols alone.

    Exit code: 0 written, 2 no kernel, 3 it has no symbols.
    """
    from pvops_core.guest.debugfile.symbolfile import symbol_file  # noqa: PLC0415 - heavy
    from pvops_core.images import load_image  # noqa: PLC0415

    check_folders(output, json)
    if output.exists() and file.exists() and output.samefile(file):
        raise UsageError(f"--output {output} is the kernel itself")
    moved = _number(offset)
    with progress(f"reading {file}"):
        image = load_image(file)
        made = symbol_file(image, moved)
    if made is None:
        sys.stderr.write(f"pvops: {printable(image.path)} has no symbols: neither .symtab nor kallsyms\n")
        return ExitCode.NOTHING
    write_file(output, made.data)
    result = SymbolsResult(
        image=like(image, Image),
        file=str(output),
        sha256=sha256(made.data).hexdigest(),
        bytes=len(made.data),
        offset=f"{moved:#x}",
        source=made.source,
        symbols=made.symbols,
        functions=made.functions,
        frames=made.frames,
    )
    write_json("symbols", result, json)
    if json != STDOUT:
        frames = f"frames of {made.frames:,} ranges of text" if made.frames else "no frames, for the kernel has no ORC"
        told = f"{output}: {made.symbols:,} symbols from {made.source}, {made.functions:,} of functions; {frames}"
        sys.stdout.write(f"{printable(told)}\n")
    return ExitCode.FINE


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"--offset takes a number of bytes, as 0x1d000000, not {text!r}") from None
