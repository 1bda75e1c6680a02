"""A cluster worker's side: it runs cells in child processes that stay, and is asked whether it is like its client.

Nothing here imports the cluster's library: these are plain functions that it calls in a thread of a worker.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from pvops_core.cachefolder import cache_folder
from pvops_core.child.calls import call_apart
from pvops_core.child.limits import Limits
from pvops_core.child.supervised import ChildLostError
from pvops_core.records import line, read
from pvops_core.runs.cellrun import WARM, CellRun, worker
from pvops_core.runs.wire import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pvops_core.child.supervised import Child
    from pvops_core.runs.cell import Cell
    from pvops_core.runs.observation import Observation

Parts = dict[str, str]
"""What runs are made of: package or library -> hash of its sources or version."""
_IDLE: Final[list[Child]] = []


def parts_here(names: Sequence[str], plugins: Sequence[str]) -> Parts:
    """What runs on some backends are made of, in this process's environment; the plugins are loaded in a child.

    Args:
        names: of the backends.
        plugins: what was given with ``--plugin``.
    """
    try:
        return call_apart(loaded_parts, tuple(names), tuple(plugins), limits=Limits())
    except ChildLostError as lost:
        return {"backends": f"cannot be loaded: {lost.reason}"}


def loaded_parts(names: Sequence[str], plugins: Sequence[str]) -> Parts:
    """As :func:`parts_here`, of plugins that are loaded into this process."""
    from pvops_core.backends.loading.loader import load_chains  # noqa: PLC0415 - loads plugins' code
    from pvops_core.study.keys import Keys  # noqa: PLC0415

    loaded = load_chains(names, plugins)
    missing = {f"backend {name}": "is not there" for name in names if name not in loaded.backends}
    return missing | Keys(loaded.backends).parts([name for name in names if name in loaded.backends])


def unlike(expected: Mapping[str, str], found: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Where a worker's parts differ from its client's: part -> the client's, and the worker's."""
    return {
        part: (expected.get(part, "none"), found.get(part, "none"))
        for part in dict.fromkeys([*expected, *found])
        if expected.get(part) != found.get(part)
    }


@cache
def parts_once(names: tuple[str, ...], plugins: tuple[str, ...]) -> Parts:
    """As :func:`parts_here`, looked for once in a worker's life."""
    return parts_here(names, plugins)


def _folder() -> Path:
    cache_home = cache_folder(os.environ) or Path(tempfile.gettempdir(), f"pvops-{os.getuid()}")
    return cache_home / "study-files"


def missing_files(hashes: Sequence[str]) -> list[str]:
    """Hashes of the files that this machine does not have."""
    return [sha256 for sha256 in hashes if not (_folder() / sha256).is_file()]


def keep_file(sha256: str, data: bytes) -> None:
    """Keep a file by its content; ValueError if it is not of the hash, OSError if it cannot be kept."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("a file has come with other contents than were sent")
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = folder / f".{sha256}.{os.getpid()}.{threading.get_ident()}"
    beside.write_bytes(data)
    beside.replace(folder / sha256)


def run_cell(request: bytes, hashes: tuple[str, str], limits: Limits) -> tuple[str, bytes]:
    """Run a cell in a child process.

    Args:
        request: line of the request, which says where the client has its kernel and ramdisk.
        hashes: of these; empty for none.
        limits: what the run may take.

    Returns:
        Name of this machine, and line of the observation, which says the client's paths again, in what it tells too.
    """
    asked = read(request, Request)
    kernel, initrd = (str(_folder() / sha256) if sha256 else "" for sha256 in hashes)
    own = replace(asked.cell, guest=kernel or asked.cell.guest, initrd=initrd)
    run = _run(replace(asked, cell=own), limits)
    observation = asyncio.run_coroutine_threadsafe(run, _loop()).result()
    told = {name: _of_client(getattr(observation, name), own, asked.cell) for name in ("reason", "detail")}
    return socket.gethostname(), line(replace(observation, cell=asked.cell, site_codes={}, **told))


def _of_client(text: str, own: Cell, asked: Cell) -> str:
    """Text of a run here as it would be on the client's machine: its files have their names there."""
    for here, there in ((own.guest, asked.guest), (own.initrd, asked.initrd)):
        text = text.replace(here, there) if here != there else text
    return text


async def _run(request: Request, limits: Limits) -> Observation:
    place = _IDLE.pop() if _IDLE else worker(WARM)
    try:
        return await CellRun(request, place, limits, stays=True).run()
    finally:
        _IDLE.append(place)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One loop for all threads of this process: its children stay from one cell to the next."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="pvops cells").start()
    return loop
