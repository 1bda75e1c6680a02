"""``--pdb``: a prompt where a hook failed or the guest crashed, at the terminal of whoever started the run."""

from __future__ import annotations

import pdb  # noqa: T100 - the tool itself
from typing import TYPE_CHECKING, Any

from pvops_core.prompt.console import open_prompt
from pvops_core.runs.observation import Outcome
from pvops_core.runs.worker.debug.prompt import at_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from pvops_core.runs.wire import Message
    from pvops_core.runs.worker.runend import RunEnd
    from pvops_core.session import Session


def look(session: Session, ending: RunEnd, send: Callable[[Message], None]) -> None:
    """Open a prompt if the run has ended badly and there is a terminal; what is done there is no part of the result."""
    if ending.outcome not in {Outcome.ERROR, Outcome.CRASH}:
        return
    with at_terminal(send, session.machine) as streams:
        if streams is None:
            return
        told = f"{ending.outcome.value}: {ending.reason}\n{ending.detail}".rstrip()
        names: dict[str, Any] = {"ending": ending}
        if ending.error is not None:
            told += "\nerror is what was raised, post_mortem() Python's debugger where that was."
            names |= {"error": ending.error, "post_mortem": _post_mortem(ending.error, *streams)}
        open_prompt(session, told=len(session.platform.console), streams=streams, before=told, **names)


def _post_mortem(error: BaseException, stdin: TextIO, stdout: TextIO) -> Callable[[], None]:
    # The author's own exception is the cause of ours.
    trace = (error.__cause__ or error).__traceback__

    def post_mortem() -> None:
        """Open Python's debugger at the frame in which it was raised."""
        debugger = pdb.Pdb(stdin=stdin, stdout=stdout, nosigint=True)
        debugger.reset()
        debugger.interaction(None, trace)

    return post_mortem
