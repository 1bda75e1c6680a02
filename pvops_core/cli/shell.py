"""``pvops shell``: a Python prompt on a kernel that has been booted to a place, or a script in its place."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pvops_core.backends.choices import parse_choices
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, PluginOption, read_file, write_json
from pvops_core.cli.options import kernels, ramdisks, runoptions, saved
from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.backends import Backend
    from pvops_core.session import Session


def shell(
    kernel: Annotated[
        Path | None, typer.Argument(metavar="KERNEL", help="Kernel to boot: bzImage or ELF, as distributions ship it.")
    ] = None,
    *,
    backend: Annotated[str, typer.Option(metavar="NAME", help="Backend whose platform it boots on.")] = "native",
    initrd: Annotated[
        str, typer.Option(metavar="FILE", help="Initial ramdisk; shell for one with a shell, made on the fly.")
    ] = "",
    cmdline: Annotated[str, typer.Option(metavar="TEXT", help="Command line of the kernel.")] = "",
    cpus: runoptions.CpusOption = 1,
    seed: runoptions.SeedOption = 0,
    memory: runoptions.MemoryOption = kernels.DEFAULT_MEMORY,
    stop_at: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            help="Boot to this place before the prompt opens, as for `pvops boot`; to its first instruction if not "
            "given.",
        ),
    ] = "",
    load: saved.LoadOption = None,
    script: Annotated[
        str, typer.Option(metavar="FILE", help="Run this script in place of the prompt; - for standard input.")
    ] = "",
    settings: runoptions.SetOption = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
) -> int:
    """Open a Python prompt on a kernel.

    The names there: session, vcpus, run, run_to, step, where, read, symbol, disassemble, call, op, hook, switch, save,
    dump and others; help(name) tells of each, Tab completes them, and in quotes the kernel's symbols. It is IPython's
    where that is installed. What comes through a pipe is run as a script with the same names, as --script is.

    Exit code: 0 the prompt was left or the script has ended, 1 it raised an exception, 2 or 4 pvops refused or failed;
    of a script what it gives to sys.exit.
    """
    if kernel is None and load is None:
        raise UsageError("give a KERNEL to boot, or --load FILE to go on from a saved boot")
    runoptions.check_folders(json)
    text = read_file(script).decode("utf-8", "replace") if script and script != STDOUT else None
    plugins = tuple(plugin or ())
    loaded = runoptions.load(plugins)
    if runoptions.are_broken(loaded, plugins, backend):
        return ExitCode.FAULT
    its_own: dict[str, tuple[object, object]] = {
        "backend": (backend, "native"),
        "cmdline": (cmdline, ""),
        "cpus": (cpus, 1),
        "seed": (seed, 0),
        "memory": (memory, kernels.DEFAULT_MEMORY),
        "set": (settings or [], []),
    }
    if load is not None:
        made = _loaded(load, kernel, initrd, its_own, loaded.backends)
    else:
        assert kernel is not None
        options = {"vcpus": cpus, "seed": seed, "memory": memory << 20, "options": parse_choices(settings or ())}
        made = _booted(
            kernel, ramdisks.ramdisk(initrd, kernels.kernel_kind(kernel)), cmdline, backend, loaded.backends, options
        )
    with made as session:
        # Standard output is the document's alone.
        with contextlib.redirect_stdout(sys.stderr if json == STDOUT else sys.stdout):
            code = _talk(session, stop_at, len(session.platform.console), text, script or "<script>")
        if json:
            _tell(session, code, json)
        return code


def _tell(session: Session, code: int, json: str) -> None:
    """Write where it stands in the end."""
    from pvops_core.prompt.findings import ShellResult  # noqa: PLC0415 - seldom wanted

    machine = session.machine
    console = session.platform.console.decode(errors="replace")
    log = machine.log.sha256
    found = ShellResult(session.guest.image.path, code & 0xFF, session.where(), console, machine.clock.ns, log)
    write_json("shell", found, json)


def _booted(
    kernel: Path, initrd: str, cmdline: str, backend: str, backends: Mapping[str, Backend], options: dict[str, Any]
) -> Session:
    """A session at its first instruction."""
    from pvops_core.backends import chain  # noqa: PLC0415 - heavy
    from pvops_core.errors import unknown  # noqa: PLC0415
    from pvops_core.guests import read_kernel  # noqa: PLC0415
    from pvops_core.session import Session  # noqa: PLC0415

    if backend not in backends:
        raise unknown("backend", backend, sorted(backends))
    guest = read_kernel(kernel, initrd or None, cmdline)
    return Session(guest, chain(backends[backend], backends), **options)


def _loaded(
    file: Path,
    kernel: Path | None,
    initrd: str,
    given: dict[str, tuple[object, object]],
    backends: Mapping[str, Backend],
) -> Session:
    """A session that goes on from a file."""
    from pvops_core.guests import read_kernel  # noqa: PLC0415 - heavy
    from pvops_core.session import Session  # noqa: PLC0415

    cell = saved.loaded_cell(file, kernel, initrd, given)
    guest = read_kernel(cell.guest, cell.initrd or None, cell.cmdline)
    return Session.load(file, guest=guest, backends=backends)


def _talk(session: Session, stop_at: str, told: int, text: str | None, name: str) -> int:
    """Boot to the place, then the prompt or the script."""
    from pvops_core.prompt.commands import Commands  # noqa: PLC0415 - heavy
    from pvops_core.prompt.console import open_prompt, run_script  # noqa: PLC0415

    if stop_at:
        Commands(session, sys.stdout, told).run_to(stop_at)
        told = len(session.platform.console)
    if text is None and name != STDOUT and sys.stdin.isatty():
        open_prompt(session, told=told)
        return ExitCode.FINE
    return run_script(session, sys.stdin.read() if text is None else text, name, told=told)
