"""What can be wrong with a study: its file, or the folder of its results."""

from __future__ import annotations

import attrs

from pvops_core.errors import PvopsError, UsageError


@attrs.define(eq=False)
class StudyError(UsageError):
    """A study's file asks for what does not exist or does not fit together.

    Attributes:
        path: the file; empty for a study that was given by options.
        line: number of the line, where that is known.
        key: the key concerned, such as ``cpus`` or ``exclude[1].backend``.
    """

    path: str = ""
    line: int | None = None
    key: str = ""

    def where(self) -> str:
        """File, line and key."""
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return ": ".join(filter(None, (place, self.key)))


@attrs.define(eq=False)
class StoreError(UsageError):
    """A folder of results cannot be read or written; what was kept in it before is still there.

    Attributes:
        path: the folder or file.
    """

    path: str = ""

    def where(self) -> str:
        """The folder or file."""
        return self.path


@attrs.define(eq=False)
class ClusterError(PvopsError):
    """A cluster cannot run a study's cells; what has ended is kept.

    Attributes:
        address: of the scheduler or worker.
    """

    address: str = ""

    def where(self) -> str:
        """The scheduler or worker."""
        return self.address
