"""A prompt that somebody at the console has asked for, in the midst of a run, which goes on when it is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Stop
    from pvops_core.runs.wire import Message
    from pvops_core.session import Session

_BEFORE: Final = "The guest stands still; Ctrl-D lets it go on."


def with_prompts(session: Session, send: Callable[[Message], None], run: Callable[[], Stop]) -> Stop:
    """Make a run in pieces, with a prompt at the terminal between two; gives how the last one ended."""
    while (stop := run()).reason == "asked":
        from pvops_core.prompt.console import open_prompt  # noqa: PLC0415 - seldom wanted
        from pvops_core.runs.worker.debug.prompt import at_terminal  # noqa: PLC0415

        with at_terminal(send, session.machine) as streams:
            if streams is not None:
                open_prompt(session, told=len(session.platform.console), streams=streams, before=_BEFORE)
    return stop
