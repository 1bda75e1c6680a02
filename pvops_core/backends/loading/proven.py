"""Notes on plugins that loaded well, so that they are not tried again while their files stay as they are."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.cachefolder import cache_folder

if TYPE_CHECKING:
    from pvops_core.backends.finding.found import Found

MOST: Final = 256
"""Notes kept; the oldest go first."""


@attrs.define(eq=False)
class Proven:
    """The notes of a user, in ``pvops/plugins.json`` in the cache folder (XDG_CACHE_HOME, or .cache at home).

    A folder that cannot be read or written costs no more than that plugins are tried again.

    Attributes:
        file: where they are kept; None for nowhere.
    """

    file: Path | None
    _notes: dict[str, str] = attrs.field(init=False)
    _new: bool = attrs.field(default=False, init=False)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Proven:
        """The notes of the user whose environment this is."""
        folder = cache_folder(environ)
        return cls(folder and folder / "plugins.json")

    @_notes.default
    def _read(self) -> dict[str, str]:
        try:
            notes = json.loads(self.file.read_text(encoding="utf-8")) if self.file else {}
        except (OSError, ValueError, RecursionError):
            notes = {}
        return notes if isinstance(notes, dict) and all(isinstance(note, str) for note in notes.values()) else {}

    def __contains__(self, found: Found) -> bool:
        mark = _mark(found)
        return mark is not None and self._notes.get(_key(found)) == mark

    def add(self, found: Found) -> None:
        """Note that a plugin loaded well."""
        mark = _mark(found)
        if mark is not None:
            self._notes.pop(_key(found), None)
            self._notes[_key(found)] = mark
            self._new = True

    def keep(self) -> None:
        """Write the notes down, if there are new ones."""
        if not self._new or self.file is None:
            return
        others = {key: note for key, note in self._read().items() if key not in self._notes}
        notes = dict([*others.items(), *self._notes.items()][-MOST:])  # another process may have written meanwhile
        beside = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                beside.write_text(json.dumps(notes, indent=1), encoding="utf-8")
                beside.replace(self.file)
            finally:
                beside.unlink(missing_ok=True)  # a full disk leaves half of it


def _key(found: Found) -> str:
    return f"{sys.prefix}: {found.key}"  # each virtual environment has its own


def _mark(found: Found) -> str | None:
    """What the plugin's files, this pvops and this Python are like; None where the files are not to be found."""
    files = sorted(_files(found))
    if not files:
        return None
    core = sorted(Path(__file__).parents[1].rglob("*.py"))
    seen = hashlib.sha256(f"{sys.version} {found.version}".encode())
    for file in (*core, *files):
        try:
            state = file.stat()
        except OSError:
            return None
        seen.update(f"\0{file}\0{state.st_size}\0{state.st_mtime_ns}".encode())
    return seen.hexdigest()


def _files(found: Found) -> Iterator[Path]:
    if found.file is not None:
        yield from found.file.parent.rglob("*.py") if found.file.name == "__init__.py" else [found.file]
        return
    top = found.value.partition(":")[0].partition(".")[0].strip()
    for folder in found.folders:
        yield from (folder / top).rglob("*.py")
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top) if top else None
        for place in (spec and spec.submodule_search_locations) or ():
            yield from Path(place).rglob("*.py")
        if spec and spec.origin:
            yield Path(spec.origin)
