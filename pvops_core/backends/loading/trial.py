"""Loads plugins in a child process first: one that hangs there, or ends the process, does not do it to the host.

The child says when it begins with a plugin and how that ended, so that the parent knows whom it waits for. A plugin
that went through and whose files have not changed since is not tried again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from pvops_core.backends.finding.found import Found
from pvops_core.backends.loading.proven import Proven
from pvops_core.child.limits import Limits
from pvops_core.child.serving import lines_of_parent, take_stdout
from pvops_core.errors import PluginError, UsageError

LIMIT: Final = "PVOPS_PLUGIN_TIMEOUT"
"""Environment variable: seconds of wall time that loading one plugin may take; 0 for loading without a trial."""
LIMIT_S: Final = 10.0
START_S: Final = 60.0
"""Seconds that the child has to come to the first plugin."""
SETTLE_S: Final = 0.5
"""Seconds that threads which a plugin started at import have to end."""


def tried(plugins: Sequence[Found], environ: Mapping[str, str]) -> dict[Found, PluginError]:
    """Load plugins in a child process; what is wrong with those that do not load.

    Args:
        plugins: as they were found.
        environ: the environment, for the limit and the place of the notes on those that went through.

    Raises:
        UsageError: the limit is not a number of seconds.
    """
    limit = _limit(environ.get(LIMIT, ""))
    if not limit:
        return {}
    proven = Proven.of(environ)
    waiting = [found for found in plugins if not found.problem and found not in proven]
    errors: dict[Found, PluginError] = {}
    while waiting:
        from pvops_core.child.supervised import finish  # noqa: PLC0415 - brings asyncio

        verdicts = finish(_run(waiting, limit))
        if not verdicts:
            break  # no child could be started: the host finds out for itself
        for found, error in zip(waiting, verdicts, strict=False):
            if error is None:
                proven.add(found)
            else:
                errors[found] = error
        waiting = waiting[len(verdicts) :]
    proven.keep()
    return errors


def _limit(text: str) -> float:
    try:
        limit = float(text or LIMIT_S)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < threading.TIMEOUT_MAX:
        raise UsageError(f"{LIMIT}: {text!r} is not a number of seconds")
    return limit


async def _run(plugins: Sequence[Found], limit: float) -> list[PluginError | None]:
    """The verdicts of one child, in order; after one that hung or ended the child there are no more."""
    from pvops_core.child.supervised import Child, ChildLostError, Loss, python  # noqa: PLC0415 - brings asyncio

    child, begun = Child(python(f"{__name__}:serve")), False
    verdicts: list[PluginError | None] = []
    try:
        await child.start()
        await child.say(json.dumps([_packed(found) for found in plugins]).encode() + b"\n")
        await child.within(Limits(wall_s=START_S), child.answer())
        begun = True
        while len(verdicts) < len(plugins):
            answer = json.loads(await child.within(Limits(wall_s=limit), child.answer()))
            verdicts.append(PluginError(**answer) if answer else None)
    except OSError:
        return []
    except ChildLostError as lost:
        if begun:  # else it did not come to the first plugin, so none is to blame
            told = {
                Loss.TIMEOUT: f"did not come to an end within {limit:g} s",
                Loss.DIED: f"ended the process: {lost.reason}",
            }
            found = plugins[len(verdicts)]
            advice = f"to leave it out: PVOPS_DISABLE_PLUGINS={found.distribution}"
            verdicts.append(found.error(f"loading it {told.get(lost.loss, lost.reason)}; {advice}"))
    finally:
        await child.end()
    return verdicts


def _packed(found: Found) -> dict[str, Any]:
    packed = attrs.asdict(found)
    return packed | {"file": found.file and str(found.file), "folders": [str(folder) for folder in found.folders]}


def _unpacked(packed: Mapping[str, Any]) -> Found:
    file, folders = packed["file"], tuple(Path(folder) for folder in packed["folders"])
    return Found(**{**packed, "file": Path(file) if file else None, "folders": folders})


def serve() -> None:
    """The child: load the plugins named on standard input, and say how each went on the pipe that was given."""
    send = take_stdout()

    def say(answer: Mapping[str, Any]) -> None:
        send(json.dumps(answer).encode() + b"\n")

    plugins = [_unpacked(packed) for packed in json.loads(next(lines_of_parent()))]
    from pvops_core.backends.loading.loader import load  # noqa: PLC0415  which imports this module

    say({"begins": len(plugins)})
    for found in plugins:
        before = set(threading.enumerate())
        try:
            load(found)
            _quiet(found, before)
        except PluginError as error:
            say(attrs.asdict(error))
        else:
            say({})
    os._exit(0)  # what a plugin does at exit is no part of loading it


def _quiet(found: Found, before: set[threading.Thread]) -> None:
    """Refuse a plugin that leaves threads which would keep the host from ending."""
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(SETTLE_S)
    if names := ", ".join(thread.name for thread in left if thread.is_alive()):
        raise found.error(f"loading it left threads running: {names}")
