"""The key of a cell: a hash over all that determines its run. Equal keys have equal results, on whatever machine.

Wall time, host, folders and names of files are not in it; contents are.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from pvops_core.backends import chain
from pvops_core.errors import ImageError
from pvops_core.records import document
from pvops_core.sources import source_hashes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pvops_core.backends import Backend
    from pvops_core.runs.wire import Request

FORMAT: Final = 1
"""Goes up when a key's parts change, or what is kept of a run."""
_ENGINES: Final = ("unicorn", "capstone", "llvmlite")
"""Libraries that execute guests' code, or say what it does."""
_PLACED: Final = re.compile("_[0-9a-f]{12}$")
"""What a module's name has at its end that was loaded from a file, by the file's place."""
_MEASURING: Final = ("runs",)
"""Folders whose sources say what is observed of a run."""


class Keys:
    """Keys of cells, with each file read and each package hashed once.

    Args:
        backends: all that are loaded, by name.
    """

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = backends
        self._files: dict[str, str] = {}
        self._by_backend: dict[str, object] = {}
        self._engine = {name: metadata.version(name) for name in _ENGINES}

    def key(self, request: Request, repeat: int) -> str:
        """The hash in hex.

        Raises:
            ImageError: a kernel or ramdisk cannot be read.
        """
        cell = request.cell
        parts = {
            "format": FORMAT,
            "repeat": repeat,
            "cell": document(replace(cell, guest=self.file(cell.guest) if cell.group.of_kernel else cell.guest)),
            "initrd": self.file(cell.initrd),
            "backend": self._sources(cell.backend),
            "engine": self._engine,
            "inside": document(request.inside),
            "examine": request.examine,
            "ends": (request.until, request.stop_at, request.max_ns),
        }
        # Where the ramdisk lies does not matter; what is in it stands beside.
        parts["cell"].pop("initrd")
        # Sorted, or the order in which parts are named would make another key.
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def file(self, path: str) -> str:
        """SHA-256 of a file; empty for no file.

        Raises:
            ImageError: it cannot be read.
        """
        if path and path not in self._files:
            try:
                with Path(path).open("rb") as file:
                    self._files[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as failure:
                raise ImageError(f"cannot be read: {failure.strerror}", path) from failure
        return self._files.get(path, "")

    def parts(self, names: Iterable[str]) -> dict[str, str]:
        """What the runs on some backends are made of: package -> hash of its sources, library -> version."""
        packages = {package for name in names for package in self.packages(name)}
        hashes = source_hashes(packages, _MEASURING)
        return {_PLACED.sub("", name): sha256 for name, sha256 in hashes.items()} | self._engine

    def packages(self, backend: str) -> set[str]:
        """The packages and modules that a backend's chain is made of, the core aside."""
        return {name for each in chain(self._backends[backend], self._backends) for name in _packages(each)}

    def _sources(self, backend: str) -> object:
        """Names of the backend and its bases, and the contents of all they are made of, wherever that lies."""
        if backend not in self._by_backend:
            names = [each.name for each in chain(self._backends[backend], self._backends)]
            hashes = source_hashes(self.packages(backend), _MEASURING)
            self._by_backend[backend] = names, sorted(hashes.values())
        return self._by_backend[backend]


def _packages(backend: Backend) -> Iterator[str]:
    """Where a backend is declared, and where the classes come from that it is made of."""
    if found := backend.source:
        declared = found.value.partition(":")[0].strip()
        files = {getattr(module, "__file__", None): name for name, module in sys.modules.items()}
        yield (files.get(str(found.file), declared) if found.file else declared).partition(".")[0]
    parts = (backend.ops, backend.platform, backend.kernel and type(backend.kernel))
    names = {base.__module__.partition(".")[0] for part in parts if part for base in part.__mro__}
    yield from names - sys.stdlib_module_names
