"""What is told of live patching: to who asks a running machine, and at a run's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import UNSET, UnsetType

from pvops_core.records import FLAT, Count, JsonRecord, Sha256


class PayloadTold(JsonRecord, frozen=True):
    """A payload.

    Attributes:
        name: Its name.
        state: Its state.
        rc: Result of its last action: 0 or a negative errno.
        build_id: Its own build-id, in hex.
        depends: The build-id that it depends on, in hex.
        metadata: Its metadata, `key=value` each.
        functions: Symbols of the functions that it replaces.
    """

    name: str
    state: Literal["CHECKED", "APPLIED"]
    rc: int
    build_id: str
    depends: str
    metadata: tuple[str, ...]
    functions: tuple[str, ...]


class CommandDone(JsonRecord, frozen=True):
    """A command.

    Attributes:
        ns: Virtual time at its end, in nanoseconds.
        command: The command.
        exit: Its exit code.
        lines: What it said.
    """

    ns: Count
    command: str
    exit: Count
    lines: tuple[str, ...]


class LivePatched(JsonRecord, frozen=True):
    """What was done to a machine's live patches while it ran; of `pvops boot` nothing unless asked for.

    Attributes:
        commands: Commands that were done, in order.
        not_done: Commands that were not reached.
        payloads: Payloads that are there at the end, in the order of upload.
        messages: What the hypervisor said.
    """

    commands: tuple[CommandDone, ...] | UnsetType = UNSET
    not_done: tuple[str, ...] | UnsetType = UNSET
    payloads: tuple[PayloadTold, ...] | UnsetType = UNSET
    messages: tuple[str, ...] | UnsetType = UNSET

    @property
    def exit_code(self) -> int:
        """That of the first command that failed; 1 if some were not done."""
        codes = (each.exit for each in self.commands or () if each.exit)
        return next(codes, 1 if self.not_done else 0)


class LivepatchRun(LivePatched, frozen=True, kw_only=True):
    """`pvops livepatch run`.

    Attributes:
        outcome: How the guest ended.
        reason: Why, in a line.
        event_log_sha256: Hash of all that happened, in order.
        text_sha256: Hash of the guest's text at the end.
    """

    commands: tuple[CommandDone, ...]
    not_done: tuple[str, ...]
    payloads: tuple[PayloadTold, ...]
    messages: tuple[str, ...]
    outcome: str
    reason: str
    event_log_sha256: Sha256
    text_sha256: Sha256


class PayloadContents(JsonRecord, frozen=True):
    """What is in a payload.

    Attributes:
        sections: Sections that are loaded, and their bytes.
        symbols: Named symbols, and their bytes.
    """

    sections: Mapping[str, Count]
    symbols: Mapping[str, Count]


class PayloadShown(JsonRecord, frozen=True):
    """`pvops livepatch build` and `show`.

    Attributes:
        payload: What is in it.
    """

    payload: PayloadContents


class VerbRequest(JsonRecord, frozen=True):
    """A line by which a running machine is asked for something.

    Attributes:
        words: The command.
        files: What the files hold that it names.
    """

    words: tuple[str, ...]
    files: Mapping[str, bytes]


class VerbReply(JsonRecord, frozen=True):
    """What a running machine answers.

    Attributes:
        exit: Its exit code.
        lines: What it said.
        ns: Virtual time of the machine at its end, in nanoseconds.
        payloads: Payloads that are there at the end, in the order of upload.
        error: Why nothing was done, in place of what was said.
    """

    exit: Count
    lines: tuple[str, ...] | UnsetType = UNSET
    ns: Count | UnsetType = UNSET
    payloads: tuple[PayloadTold, ...] | UnsetType = UNSET
    error: str | UnsetType = UNSET


class VerbResult(JsonRecord, frozen=True):
    """`pvops livepatch list`, `apply` and the other verbs for a running machine.

    Attributes:
        command: The command.
        reply: What the machine answered.
    """

    command: str
    reply: Annotated[VerbReply, FLAT]
