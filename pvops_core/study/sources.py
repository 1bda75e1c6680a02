"""Files that a study's keys were made of: one that changes meanwhile makes what comes after of another key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pvops_core.sources import source_files
from pvops_core.study.errors import StudyError
from pvops_core.study.keys import Keys

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.study.plan import Planned

_State = dict[Path, tuple[int, int] | None]


class SourceWatch:
    """Sees whether sources, kernels and ramdisks are as they were when it was made.

    Args:
        cells: what is run.
        backends: all that are loaded.
    """

    def __init__(self, cells: Sequence[Planned], backends: Mapping[str, Backend]) -> None:
        keys = Keys(backends)
        packages = {"pvops_core"}.union(*(keys.packages(name) for name in {cell.axes.backend for cell in cells}))
        self._packages = sorted(packages)
        runs = [cell.request.cell for cell in cells]
        self._images = sorted(
            {path for run in runs for path in (run.guest, run.initrd) if run.group.of_kernel and path}
        )
        self._seen = self._look()

    def check(self) -> None:
        """Raise StudyError, which names it, if a file is another now."""
        now = self._look()
        for path in {*now, *self._seen}:
            if now.get(path) != self._seen.get(path):
                told = "changed while the study ran; what had ended before is kept: run the study again"
                raise StudyError(told, str(path))

    def _look(self) -> _State:
        files: Iterable[Path] = (file for package in self._packages for _name, file in source_files(package))
        return {file: _state(file) for file in [*files, *map(Path, self._images)]}


def _state(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    # Not by contents: a kernel of many megabytes would be read at every look.
    return found.st_mtime_ns, found.st_size
