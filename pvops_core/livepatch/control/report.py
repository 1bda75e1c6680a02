"""What was done to a machine's live patches while it ran: lines as it happens, and a document at the end."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        self._done: list[dict[str, object]] = []

    def say(self, line: str) -> None:
        """A verb says something."""
        self._lines.append(line)
        self._show(f"[{self._livepatch.guest.machine.clock.ns / 1e9:12.6f}] {line}")

    def done(self, words: Sequence[str], code: int) -> list[str]:
        """A command is over; gives what it has said."""
        lines, self._lines = self._lines, []
        ns = self._livepatch.guest.machine.clock.ns
        self._done.append({"ns": ns, "command": shlex.join(words), "exit": code, "lines": lines})
        return lines

    def step(self, step: Step, code: int) -> None:
        """A step of a script is over."""
        self.done(step.words, code)

    def found(self, script: Script | None = None) -> dict[str, Any]:
        """The document: commands done, those of a script not done, payloads, and what was logged."""
        left = [step.command for step in script.left] if script is not None else []
        return {
            "commands": self._done,
            "not_done": left,
            "payloads": payloads(self._livepatch),
            "messages": list(self._livepatch.messages),
        }


def payloads(livepatch: Livepatch) -> list[dict[str, object]]:
    """Every payload, in the order of upload."""
    return [
        {
            "name": record.name,
            "state": record.state.name,
            "rc": record.rc,
            "build_id": record.payload.build_id.hex(),
            "depends": record.payload.depends.hex(),
            "metadata": [text.decode("utf-8", "replace") for text in record.payload.metadata.split(b"\0") if text],
            "functions": [function.name for function in record.payload.functions],
        }
        for record in livepatch.registry.records
    ]


def exit_code(found: Mapping[str, Any]) -> int:
    """The exit code of a document: that of the first command that failed, 1 if some were not done."""
    codes: Iterable[int] = (each["exit"] for each in found.get("commands", ()) if each["exit"])
    return next(iter(codes), 1 if found.get("not_done") else 0)
