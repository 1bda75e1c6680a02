"""The ``pvops`` command: one module a verb, imported when it is used."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperGroup

from pvops_core.cli.common import ExitCode, exit_code_of, usage_alone
from pvops_core.cli.output import streams
from pvops_core.cli.plainly import take_plainly
from pvops_core.errors import HostMemoryError, PvopsError, printable, shortened, tells_of_no_memory, unknown

if TYPE_CHECKING:
    from collections.abc import Callable


class Verb(NamedTuple):
    """A verb, without anything of it being imported.

    Attributes:
        target: ``module:function``. The function's parameters are the verb's, its docstring the help, its result the
            exit code. A verb with verbs of its own is a ``typer.Typer`` instead.
        summary: what it does, for the list of verbs.
    """

    target: str
    summary: str


VERBS: Final[Mapping[str, Verb]] = {
    "compare": Verb("pvops_core.cli.compare:compare", "Compare backends on one guest."),
    "study": Verb("pvops_core.cli.study:study", "Make many runs over axes, and keep them."),
    "run": Verb("pvops_core.cli.run:run", "Run the built-in guest once."),
    "boot": Verb("pvops_core.cli.boot:boot", "Boot a real kernel, or many guests."),
    "shell": Verb("pvops_core.cli.shell:shell", "Open a Python prompt on a kernel."),
    "livepatch": Verb("pvops_core.cli.livepatch:livepatch", "Live-patch a guest while it runs."),
    "prove": Verb("pvops_core.cli.prove:prove", "Prove hooks against a kernel's own functions."),
    "scenario": Verb("pvops_core.cli.scenario:scenario", "Play a failure of the past again."),
    "patch": Verb("pvops_core.cli.patch:patch", "Show what a kernel makes of its call sites."),
    "record": Verb("pvops_core.cli.record:record", "Record a real boot of a kernel."),
    "backends": Verb("pvops_core.cli.backends:backends", "List the backends that there are."),
    "symbols": Verb("pvops_core.cli.symbols:symbols", "Write a kernel's symbols for debuggers."),
    "initrd": Verb("pvops_core.cli.initrd:initrd", "Make an initial ramdisk with a shell."),
    "sites": Verb("pvops_core.cli.sites:sites", "List a kernel's paravirt call sites."),
    "cache": Verb("pvops_core.cli.cache:cache", "List or clear what is kept of boots."),
    "new-backend": Verb("pvops_core.cli.new_backend:new_backend", "Write a new backend to begin from."),
}


_INTERRUPTED: Final = 130
"""What typer makes of Ctrl-C."""
_LEAST_ROOM: Final = 192 << 20
"""Bytes of address space into which the libraries go. numpy's own ends the process where it is refused some."""


class _Verbs(TyperGroup):
    """A group whose verbs are imported when they are asked for: starting up costs no more than the verb used."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - the base class's type is private
        del ctx
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - likewise
        del ctx
        return load_verb(cmd_name) if cmd_name in VERBS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - likewise
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - likewise
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise unknown("verb", args[0], VERBS)
        return super().resolve_command(ctx, args)


def load_verb(name: str) -> Any:  # noqa: ANN401 - likewise
    """The command of a verb, ready to run."""
    module, _, attribute = VERBS[name].target.partition(":")
    function: Callable[..., int | None] | typer.Typer = getattr(importlib.import_module(module), attribute)
    if isinstance(function, typer.Typer):
        return take_plainly(typer.main.get_command(function))
    verb = typer.Typer(add_completion=False, rich_markup_mode=None)
    verb.command(name)(function)
    return take_plainly(typer.main.get_command(verb))


app = typer.Typer(cls=_Verbs, name="pvops", rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:  # noqa: FBT001 - an option's callback
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - only this option needs it

        sys.stdout.write(f"pvops {version('pvops-core')}\n")
        raise typer.Exit(ExitCode.FINE)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run, test, patch, switch and compare x86 paravirtualisation backends."""
    usage_alone(ctx)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the process's exit code.

    Args:
        arguments: without the program's name; by default the process's own.
    """
    if arguments is None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start threads that nothing here uses
    streams.prepare()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        streams.stop_writing()
        return ExitCode.FINE
    except OSError as failure:  # what verbs read and write has errors of its own
        if failure.errno == errno.ENAMETOOLONG:
            return _complain(f"{failure.filename}: {failure.strerror}", ExitCode.USAGE)
        streams.stop_writing()
        if failure.errno in {errno.EMFILE, errno.ENFILE}:
            return _complain("the host refused to open another file or pipe: see `ulimit -n`", ExitCode.FAULT)
        place = f"{failure.filename or 'standard output'}: {failure.strerror}"
        return _complain(place if failure.strerror else _no_memory(failure), ExitCode.FAULT)
    except (MemoryError, ImportError) as failure:
        return _complain(_no_memory(failure), ExitCode.FAULT)
    return code


def _no_memory(failure: BaseException) -> str:
    """What to say of libraries that could not be loaded, for want of memory or otherwise."""
    causes = f"{failure!r} {failure.__cause__ or failure.__context__!r}"
    refused = isinstance(failure, MemoryError) or tells_of_no_memory(causes)
    return str(HostMemoryError.of("memory to pvops itself")) if refused else str(failure)


_OPS = ("--ops", "--python-ops")
ALL_OPS = "*"


def _spelled_out(arguments: Sequence[str]) -> list[str]:
    """``--ops`` alone means all of them: the library of the command line knows no options that may have a value."""
    return [
        f"{this}={ALL_OPS}" if this in _OPS and after.startswith("-") else this
        for this, after in pairwise((*arguments, "-"))
    ]


def _run(arguments: Sequence[str] | None) -> int:
    arguments = _spelled_out(sys.argv[1:] if arguments is None else arguments)
    room, _most = resource.getrlimit(resource.RLIMIT_AS)
    if room != resource.RLIM_INFINITY and room < _LEAST_ROOM and VERBS.keys() & set(arguments):
        return _complain(str(HostMemoryError.of("memory to pvops itself")), ExitCode.FAULT)
    try:
        command = take_plainly(typer.main.get_command(app))
        result = command(args=arguments, prog_name="pvops", standalone_mode=False)
    except PvopsError as error:
        return _complain(str(error), exit_code_of(error))
    except typer.TyperException as error:
        return _complain(error.format_message(), ExitCode.USAGE)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer's own answer to it is exit code 1
            raise ended.__context__ from None
        raise
    except typer.Abort:
        return _complain("interrupted", ExitCode.CRASH)
    if result == _INTERRUPTED:
        return _complain("interrupted", ExitCode.CRASH)
    return int(result or ExitCode.FINE)


def _complain(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # the exit code says it too
        sys.stderr.write(f"pvops: {printable(shortened(message))}\n")
    return code
