"""What sources a session is made by: their contents, since an author edits and runs again under the same version."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

_CORE = "pvops_core"
_ASIDE = frozenset(
    {"__pycache__", "tests", "testing", "cli", "compare", "scenarios", "runs", "saved", "study", "templates"}
)
"""Folders without a part in how a guest runs. How a file is read and written is what the format's number says."""


def source_hashes(modules: Iterable[str], also: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 over names and contents of the sources of pvops, and of the packages that modules belong to.

    Args:
        modules: names of modules.
        also: folders without a part in how a guest runs whose sources count all the same.
    """
    packages = {_CORE, *(name.partition(".")[0] for name in modules)}
    return {package: _hash(package, _ASIDE - set(also)) for package in sorted(packages)}


@cache
def _hash(package: str, aside: frozenset[str]) -> str:
    """One process runs one state of the sources: that which it has imported."""
    seen = hashlib.sha256()
    for name, file in source_files(package, aside):
        data = file.read_bytes()
        seen.update(f"{name}\0{len(data)}\0".encode("utf-8", "surrogateescape") + data)
    return seen.hexdigest()


def source_files(package: str, aside: Collection[str] = _ASIDE) -> Iterator[tuple[str, Path]]:
    """Name within the package, and file, of each of its sources, in order."""
    module = sys.modules.get(package)
    folders = sorted(map(str, getattr(module, "__path__", ())))
    if not folders and (file := getattr(module, "__file__", None)):
        yield Path(file).name, Path(file)
    for folder in folders:
        for place, below, files in os.walk(folder):
            below[:] = sorted(name for name in below if name not in aside)
            for name in sorted(files):
                if not name.endswith((".pyc", ".pyo")):
                    file = os.path.join(place, name)  # noqa: PTH118 - some hundreds, before each run
                    yield file[len(folder) + 1 :], Path(file)
