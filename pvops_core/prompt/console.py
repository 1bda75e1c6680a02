"""The prompt itself: IPython where that is installed, Python's own console, or a script that comes through a pipe."""

from __future__ import annotations

import builtins
import code
import contextlib
import linecache
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from pvops_core.errors import PvopsError, printable
from pvops_core.prompt.commands import Commands
from pvops_core.prompt.completion import Completer, GuestNames, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from pvops_core.session import Session

OURS: Final = Path(__file__).parents[1]
_WIDTH: Final = 100
_DELIMITERS: Final = " \t\n\"'`@$><=;|&{(,)}[]"


def greeting(session: Session, names: dict[str, Any]) -> str:
    """What a prompt begins with: where the guest stands, and what names there are."""
    lines, line = [session.where(), ""], "Names:"
    for name in names:
        if len(line) + len(name) > _WIDTH:
            lines.append(line)
            line = "      "
        line += f" {name}"
    return "\n".join((*lines, line, "help(name) tells; Tab completes, in quotes symbols of the guest."))


def open_prompt(
    session: Session,
    *,
    told: int = 0,
    streams: tuple[TextIO, TextIO] | None = None,
    before: str = "",
    **more: object,
) -> None:
    """Open a prompt on a session, which does not run; comes back when it is left.

    Args:
        session: the session.
        told: bytes of the guest's console that were shown before.
        streams: what is read from and written to, by Python's own console; this process' terminal unless given.
        before: what is said first.
        more: further names.
    """
    names = {**Commands(session, streams[1] if streams else sys.stdout, told).names, **more}
    banner = "\n".join(filter(None, (before, greeting(session, names))))
    if streams is not None:
        with contextlib.redirect_stdout(streams[1]), contextlib.redirect_stderr(streams[1]):
            _At(*streams, session, names).interact(banner=banner, exitmsg="")
        return
    shell: Any = None
    with contextlib.suppress(ImportError):
        shell = import_module("IPython.terminal.embed").InteractiveShellEmbed  # may not be there
    if shell is None:
        _Console(session, names).interact(banner=banner, exitmsg="")
    else:
        _with_ipython(shell, session, names, banner)


def run_script(session: Session, text: str, name: str, *, told: int = 0) -> int:
    """Run a script with the prompt's names; gives its exit code.

    What pvops refuses is raised; of other exceptions the script's own frames are shown, and the code is 1.

    Args:
        session: the session.
        text: the script.
        name: where it is from.
        told: as for ``open_prompt``.
    """
    # Tracebacks show lines of what is no file too.
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    space = {"__name__": "__main__", **Commands(session, sys.stdout, told).names}
    try:
        exec(compile(text, name, "exec"), space)  # noqa: S102 - what it is for
    except PvopsError:
        raise
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        sys.stderr.write(f"{left.code}\n")
        return 1
    except Exception as error:  # noqa: BLE001 - the script's own
        sys.stderr.write("".join(told_of(error)))
        return 1
    return 0


def told_of(error: BaseException) -> list[str]:
    """An exception for whoever typed: a line for what pvops refuses, else with the frames that are theirs."""
    if isinstance(error, PvopsError):
        return [f"pvops: {printable(str(error))}\n"]
    error.__traceback__ = _theirs(error.__traceback__)
    return traceback.format_exception(error)


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """A traceback behind the last frames at its beginning that are ours, and before the first ones that follow."""
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    at = trace
    while at is not None and at.tb_next is not None:
        if _is_ours(at.tb_next):
            at.tb_next = None
            break
        at = at.tb_next
    return trace


def _is_ours(trace: TracebackType) -> bool:
    file = Path(trace.tb_frame.f_code.co_filename)
    return file.is_relative_to(OURS) or file == Path(code.__file__)


class _Console(code.InteractiveConsole):
    """Python's own console, with completion where readline is there."""

    def __init__(self, session: Session, names: dict[str, Any]) -> None:
        super().__init__({"__name__": "__console__", **names}, filename="<prompt>")
        self._session = session

    def interact(self, banner: str | None = None, exitmsg: str | None = None) -> None:
        try:
            with _completing(self._session, self.locals), contextlib.suppress(SystemExit):
                super().interact(banner, exitmsg)
        finally:
            vars(builtins).pop("_", None)  # the last result, which may hold the session

    def showtraceback(self) -> None:
        error = sys.exc_info()[1]
        self.write("".join(told_of(error)) if error is not None else "")


class _At(_Console):
    """The same at a pair of streams, which readline does not know."""

    def __init__(self, stdin: TextIO, stdout: TextIO, session: Session, names: dict[str, Any]) -> None:
        super().__init__(session, names)
        self._stdin, self._stdout = stdin, stdout

    def raw_input(self, prompt: str = "") -> str:
        self._stdout.write(prompt)
        self._stdout.flush()
        line = self._stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")


@contextlib.contextmanager
def _completing(session: Session, space: Any) -> Iterator[None]:  # noqa: ANN401 - typeshed's is a mapping of anything
    """While entered, readline completes our names; others' settings come back."""
    try:
        import readline  # noqa: PLC0415 - not everywhere there
    except ImportError:
        yield
        return
    before, delimiters = readline.get_completer(), readline.get_completer_delims()
    readline.set_completer(Completer(session, space).complete)
    readline.set_completer_delims(_DELIMITERS)
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before)
        readline.set_completer_delims(delimiters)


def _with_ipython(shell: Any, session: Session, names: dict[str, Any], banner: str) -> None:  # noqa: ANN401
    made = shell(banner1=f"{banner}\n\n", user_ns=dict(names), exit_msg="", confirm_exit=False)
    known = GuestNames(session)

    def symbols(text: str) -> list[str]:
        line, at = made.Completer.line_buffer, len(made.Completer.line_buffer)
        return known.beginning(text) if quoted(line[: at - len(text)]) else []

    made.Completer.custom_matchers.append(symbols)
    made.set_custom_exc((PvopsError,), lambda *caught: sys.stderr.write("".join(told_of(caught[2]))) and None)
    made()
