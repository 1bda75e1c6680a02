"""Summaries of plugins, kept on disk: to parse the sources of three of them takes 60 ms.

A summary is kept with the state of every file that was read for it, and of the folders in which another file could
come before one of them: as with Python's own compiled files, a file of the same size and times is the same.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from pvops_core.backends.finding.summary import Summary, read_summary
from pvops_core.kept import Kept

if TYPE_CHECKING:
    from pvops_core.backends.finding.found import Found

_MAKERS: Final = ("cli/keptsummary", "backends/finding/summary", "backends/finding/sources")
_KEPT: Final = Kept("summaries", _MAKERS, 64)
_SETTLED_NS: Final = 2_000_000_000
"""A file that was written so short a time ago could be written again within the resolution of its times."""
_State = tuple[int, int, int]


class _KeptSummary(msgspec.Struct, array_like=True):
    """A summary, and the states of what it is of."""

    states: dict[str, _State]
    name: str | None
    description: str | None
    base: str | None
    hooks: tuple[str, ...] | None
    capabilities: tuple[str, ...] | None


def summary(found: Found) -> Summary:
    """Read a plugin's source, or take what it said when it was as it is; never fails and never imports the plugin."""
    said = f"{found.value}\0{found.file}\0{found.folders}\0{sys.path}\0{sys.version}"
    name = hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    kept = _KEPT.read(name)
    row = _row(kept[1]) if kept else None
    if row is not None and row.states == _states(row.states):
        return Summary(row.name, row.description, row.base, row.hooks, row.capabilities)
    read, files = read_summary(found)
    # What comes to lie in front of a module changes the time of its folder.
    folders = {folder for file in files for folder in file.parents[:2]}
    states = _states(map(str, (*files, *folders, *found.folders, *sys.path)))
    if files and all(time.time_ns() - newest > _SETTLED_NS for _size, *times in states.values() for newest in times):
        row = _KeptSummary(states, read.name, read.description, read.base, read.hooks, read.capabilities)
        _KEPT.write(name, b"", msgspec.msgpack.encode(row))
    return read


def _row(data: bytes) -> _KeptSummary | None:
    try:
        return msgspec.msgpack.decode(data, type=_KeptSummary)
    except ValueError:
        return None


def _states(paths: Iterable[str]) -> dict[str, _State]:
    """Size and times of each; zeros of what is not there."""
    return {path: _state(path) for path in paths}


def _state(path: str) -> _State:
    try:
        state = os.stat(path)  # noqa: PTH116 - half as fast by way of Path, and there are many
    except (OSError, ValueError):
        return 0, 0, 0
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns
