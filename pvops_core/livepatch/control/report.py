"""What was done to a machine's live patches while it ran: lines as it happens, and a document at the end."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pvops_core.livepatch.control.findings import CommandDone, LivePatched, PayloadTold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pvops_core.livepatch.control.manager import Livepatch
    from pvops_core.livepatch.control.script import Script, Step


class LivepatchReport:
    """Keeps what the verbs say and how they end.

    Args:
        livepatch: the live patches.
        show: is given each line for the user, with the virtual time before it.
    """

    def __init__(self, livepatch: Livepatch, show: Callable[[str], None]) -> None:
        self._livepatch = livepatch
        self._show = show
        self._lines: list[str] = []
        self._done: list[CommandDone] = []

    def say(self, line: str) -> None:
        """A verb says something."""
        self._lines.append(line)
        self._show(f"[{self._livepatch.guest.machine.clock.ns / 1e9:12.6f}] {line}")

    def done(self, words: Sequence[str], code: int) -> list[str]:
        """A command is over; gives what it has said."""
        lines, self._lines = self._lines, []
        ns = self._livepatch.guest.machine.clock.ns
        self._done.append(CommandDone(ns, shlex.join(words), code, tuple(lines)))
        return lines

    def step(self, step: Step, code: int) -> None:
        """A step of a script is over."""
        self.done(step.words, code)

    def found(self, script: Script | None = None) -> LivePatched:
        """Commands done, those of a script not done, payloads, and what was logged."""
        left = tuple(step.command for step in script.left) if script is not None else ()
        return LivePatched(tuple(self._done), left, payloads(self._livepatch), tuple(self._livepatch.messages))


def payloads(livepatch: Livepatch) -> tuple[PayloadTold, ...]:
    """Every payload, in the order of upload."""
    return tuple(
        PayloadTold(
            name=record.name,
            # Of the two states only names go into documents, for numbers are Xen's business.
            state=record.state.name,  # type: ignore[arg-type]  # of its two members
            rc=record.rc,
            build_id=record.payload.build_id.hex(),
            depends=record.payload.depends.hex(),
            metadata=tuple(text.decode("utf-8", "replace") for text in record.payload.metadata.split(b"\0") if text),
            functions=tuple(function.name for function in record.payload.functions),
        )
        for record in livepatch.registry.records
    )
