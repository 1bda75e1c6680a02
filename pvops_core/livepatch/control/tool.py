"""What a user of live patches sees: the verbs, sentences and exit codes of xen-livepatch.

A verb is a generator: it yields the virtual time at which it wants to look again and returns its exit code, so that
whoever drives the machine drives it too. Source: tools/misc/xen-livepatch.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PvopsError, UsageError
from pvops_core.livepatch.errors import errno_of
from pvops_core.livepatch.payload.model import DEFAULT_TIMEOUT_NS, ActionFlag, Command, State, UploadFlag

if TYPE_CHECKING:
    from pvops_core.livepatch.control.manager import Livepatch

Verb = Generator[int, None, int]
FINE, FAILED, TRY_AGAIN = 0, 1, 2
# xen-livepatch.c: what should be tried again gets exit code 2.
_BUSY = frozenset({errno.EAGAIN, errno.EBUSY})
# Its pause between two looks, here in virtual time.
_LOOK_NS = 1_000_000


@attrs.frozen
class _Action:
    """How an action is told of: its state before and after, and its word."""

    command: Command
    before: State
    after: State
    word: str


_ACTIONS = {
    "apply": _Action(Command.APPLY, State.CHECKED, State.APPLIED, "Applying"),
    "revert": _Action(Command.REVERT, State.APPLIED, State.CHECKED, "Reverting"),
    "replace": _Action(Command.REPLACE, State.CHECKED, State.APPLIED, "Replacing all live patches with"),
}
_OPTIONS = {"--nodeps", "--force"}
VERBS = {"list": 0, "get": 1, "upload": 2, "apply": 1, "revert": 1, "replace": 1, "unload": 1, "load": 1}
"""How many arguments each verb takes, beside its options."""


def code_of(number: int) -> int:
    """The exit code of xen-livepatch.c for an errno."""
    return FINE if not number else TRY_AGAIN if number in _BUSY else FAILED


def check_words(words: Sequence[str]) -> tuple[str, list[str], frozenset[str]]:
    """A command's verb, arguments and options.

    Raises:
        UsageError: there is no such verb, or it takes other arguments.
    """
    options = frozenset(word for word in words if word.startswith("--"))
    verb, *arguments = [word for word in words if word not in options] or [""]
    if verb not in VERBS:
        raise UsageError(f"livepatch {' '.join(words)}: not one of {', '.join(VERBS)}")
    if options - _OPTIONS or len(arguments) != VERBS[verb]:
        raise UsageError(f"livepatch {' '.join(words)}: other arguments are wanted")
    return verb, arguments, options


class Tool:
    """The verbs on the live patches of one guest.

    Args:
        livepatch: the live patches.
        read: gives the bytes of a file by its name.
        say: is given each line for the user.
    """

    def __init__(self, livepatch: Livepatch, read: Callable[[str], bytes], say: Callable[[str], None]) -> None:
        self._livepatch = livepatch
        self._registry = livepatch.registry
        self._read = read
        self._say = say

    def run(self, words: Sequence[str]) -> Verb:
        """One command, as words.

        Raises:
            UsageError: there is no such verb, or it takes other arguments.
        """
        verb, arguments, options = check_words(words)
        match verb:
            case "list":
                return self._list()
            case "get":
                return self._get(*arguments)
            case "upload":
                return self._upload(*arguments, force="--force" in options)
            case "unload":
                return self._unload(*arguments)
            case "load":
                return self._load(*arguments, nodeps="--nodeps" in options, force="--force" in options)
        return self._act(_ACTIONS[verb], *arguments, nodeps="--nodeps" in options)

    def _list(self) -> Verb:
        # Nothing to wait for, but a generator like the others.
        yield from ()
        self._say(" ID                                     | status     | metadata")
        self._say("----------------------------------------+------------+---------------")
        for page in self._registry.pages():
            for name, status, metadata in page.entries:
                rest = f" ({status.rc}, {os.strerror(-status.rc)})" if status.rc else ""
                told = ";".join(text.decode("utf-8", "replace") for text in metadata.split(b"\0") if text)
                # Columns as list_func() prints them.
                self._say(f"{name:<40}| {status.state.name:<11}| {told}{rest}".rstrip())
        return FINE

    def _get(self, name: str) -> Verb:
        yield from ()
        try:
            status = self._registry.get(name)
        except PvopsError as error:
            self._say(f"Status of {name}... failed: {error}")
            return code_of(errno_of(error))
        self._say(f"{name}: {status.state.name}{f' ({status.rc}, {os.strerror(-status.rc)})' if status.rc else ''}")
        return FINE

    def _upload(self, name: str, path: str, *, force: bool = False) -> Verb:
        yield from ()
        return self._try(
            f"Uploading {path}... ",
            lambda: self._registry.upload(name, self._read(path), flags=UploadFlag.FORCE if force else 0),
        )

    def _unload(self, name: str) -> Verb:
        yield from ()
        return self._try(f"Unloading {name}... ", lambda: self._registry.action(name, Command.UNLOAD))

    def _try(self, head: str, action: Callable[[], None]) -> int:
        try:
            action()
        except PvopsError as error:
            self._say(f"{head}failed: {error}")
            return code_of(errno_of(error))
        self._say(f"{head}completed")
        return FINE

    def _load(self, path: str, *, nodeps: bool, force: bool) -> Verb:
        """Upload under the file's name without its extension, and apply; unload again if that fails."""
        name = PurePath(path).stem
        code = yield from self._upload(name, path, force=force)
        if code:
            return code
        code = yield from self._act(_ACTIONS["apply"], name, nodeps=nodeps)
        if code:
            yield from self._unload(name)
        return code

    def _act(self, action: _Action, name: str, *, nodeps: bool = False) -> Verb:
        try:
            status = self._registry.get(name)
        except PvopsError as error:
            self._say(f"{action.word} {name}... failed: {error}")
            return code_of(errno_of(error))
        # Somebody's action is under way; another must not be asked for on top.
        if status.rc == -errno.EAGAIN:
            self._say("Operation already in progress.")
            return TRY_AGAIN
        # Idempotent: scripts may be run again.
        if status.state is action.after:
            self._say("No action needed.")
            return FINE
        return (yield from self._wait(action, name, nodeps=nodeps))

    def _wait(self, action: _Action, name: str, *, nodeps: bool) -> Verb:
        head = f"{action.word} {name}... "
        # The tool passes --nodeps for apply only.
        flags = ActionFlag.NODEPS if nodeps and action.command is Command.APPLY else 0
        clock = self._livepatch.guest.machine.clock
        try:
            self._registry.action(name, action.command, flags=flags)
        except PvopsError as error:
            self._say(f"{head}failed: {error}")
            return code_of(errno_of(error))
        # Twice the time that the action may take: then it hangs.
        until = clock.ns + 2 * DEFAULT_TIMEOUT_NS
        while (status := self._registry.get(name)).rc == -errno.EAGAIN and clock.ns < until:
            yield clock.ns + _LOOK_NS
        # The action may have succeeded for another reason than ours: the state says.
        if status.rc or status.state is not action.after:
            self._say(f"{head}failed: {status.rc} ({os.strerror(-status.rc)})")
            return code_of(-status.rc) or FAILED
        self._say(f"{head}completed")
        return FINE
