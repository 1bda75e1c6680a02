"""The user's shelf of saved sessions: one process makes what others wait for, and what was not used for longest goes.

It is in the cache folder of pvops. A folder that cannot be read or written, or is full, costs no more than that
sessions are made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.cachefolder import cache_folder
from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

SIZE: Final = "PVOPS_CACHE_MIB"
"""Environment variable: how many MiB of disk saved sessions may take."""
DEFAULT_MIB: Final = 2048
_ENDING: Final = ".session"
_LOCK: Final = ".lock"


@attrs.frozen
class Shelf:
    """Files by name.

    Attributes:
        folder: where they are.
        limit: bytes of disk that they may take.
    """

    folder: Path
    limit: int

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Shelf | None:
        """That of the user whose environment this is; None for one who has no folder for it, or wants none kept.

        Raises:
            UsageError: PVOPS_CACHE_MIB is no number.
        """
        text = environ.get(SIZE, "") or str(DEFAULT_MIB)
        if not text.isascii() or not text.isdigit():
            raise UsageError(f"{SIZE}={text!r} is no number of MiB")
        folder = cache_folder(environ)
        return cls(folder / "sessions", int(text) << 20) if folder is not None and int(text) else None

    def path(self, name: str) -> Path:
        """Where the file of a name is, if it is there."""
        return self.folder / f"{name}{_ENDING}"

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Wait until nobody else makes the file of a name; gives whether there is a place for it.

        The host gives the lock back when its holder dies.
        """
        try:
            # A guest's memory may hold what is nobody else's business.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._locked(self.folder / f".{name}{_LOCK}")
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            os.close(lock)

    def _locked(self, path: Path) -> int:
        """Open and hold a lock file; one that ``clear`` took away while it was waited for keeps nobody out."""
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(lock)):
                    return lock
            os.close(lock)

    def used(self, name: str) -> None:
        """A file has been used: it stays longer than those that have not."""
        with contextlib.suppress(OSError):
            os.utime(self.path(name))

    def drop(self, name: str) -> None:
        """Take a file away, if it is there and can be."""
        with contextlib.suppress(OSError):
            self.path(name).unlink()

    def files(self) -> list[tuple[Path, int, float]]:
        """Path, bytes on disk and time of the last use of each, that used longest ago first."""
        found = []
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"*{_ENDING}"):
                with contextlib.suppress(OSError):
                    state = path.stat()
                    # st_blocks counts 512 bytes whatever the file system's own blocks are (stat(2)); holes take none.
                    found.append((path, state.st_blocks * 512, state.st_mtime))
        return sorted(found, key=lambda each: each[2])

    def trim(self, keep: str) -> None:
        """Take away those used longest ago while all together are too many, but never the one of a name."""
        files = self.files()
        taken = sum(size for _path, size, _used in files)
        for path, size, _used in files:
            if taken <= self.limit:
                return
            if path != self.path(keep):
                self.drop(path.name.removesuffix(_ENDING))
                taken -= size

    def clear(self, before: float) -> tuple[int, int]:
        """Take away what was not used since a time, and what is left of processes that died while they wrote.

        Args:
            before: in seconds since 1970.

        Returns:
            How many sessions, and their bytes.

        Raises:
            OSError: one cannot be taken away.
        """
        files = [each for each in self.files() if each[2] <= before]
        for path, _size, _used in files:
            path.unlink(missing_ok=True)
        for path in self.folder.glob(f".*{_ENDING}.*"):
            if path.stat().st_mtime <= before:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(f".*{_LOCK}"):
            if not self.path(path.name[1:].removesuffix(_LOCK)).exists():
                _remove_unheld(path)
        return len(files), sum(size for _path, size, _used in files)


def _remove_unheld(path: Path) -> None:
    """Take a lock file away, unless somebody makes the session that it is for."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
