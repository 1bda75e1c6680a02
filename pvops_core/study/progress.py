"""How far a study has come: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pvops_core.runs.costs import quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.study.plan import Planned
    from pvops_core.study.rows import Measured

_EVERY_S: Final = 10.0


class StudyProgress:
    """Shows done, running, left, failures and the time that is left; a context manager.

    Args:
        cells: that will be run.
        kept: number of those that are there already.
        console: where it is shown.
    """

    def __init__(self, cells: Sequence[Planned], kept: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._kept = kept
        self._all = Counter(each.axes.backend for each in cells)
        self._running: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._begin = self._told = time.monotonic()
        self._live = Live(console=self._console, get_renderable=self.table, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._say()
        return self

    def __exit__(self, *_failure: object) -> None:
        self._live.stop()
        if not self._console.is_terminal:
            self._say()

    def started(self, cell: Planned) -> None:
        """A cell runs."""
        self._running[cell.axes.backend] += 1

    def finished(self, cell: Planned, measured: Measured) -> None:
        """A cell has run."""
        backend = cell.axes.backend
        self._running[backend] -= 1
        self._done[backend] += 1
        # 2 is a cell that its backend does not support: that is no failure.
        self._failed[backend] += measured.outcome.exit_code not in {0, 2}
        if not self._console.is_terminal and time.monotonic() - self._told > _EVERY_S:
            self._say()

    @property
    def line(self) -> str:
        """All in one line."""
        done, whole = self._done.total(), self._all.total()
        failed = f", {self._failed.total()} failed" if self._failed.total() else ""
        kept = f", {self._kept} were there" if self._kept else ""
        return f"{done} of {whole} cells run{kept}{failed}; {self._time_left(done, whole)}"

    def _time_left(self, done: int, whole: int) -> str:
        passed = time.monotonic() - self._begin
        if done == whole:
            return f"took {quantity(passed, 's')}"
        return f"about {quantity(passed / done * (whole - done), 's')} left" if done else "begun"

    def table(self) -> Table:
        """A row for each backend."""
        table = Table(box=None, pad_edge=False, title=Text(self.line), title_justify="left", title_style="")
        for title in ("backend", "done", "running", "left", "failed"):
            table.add_column(title, justify="left" if title == "backend" else "right")
        for backend, number in self._all.items():
            done, running, failed = self._done[backend], self._running[backend], self._failed[backend]
            style = "bold red" if failed else ""
            left = number - done - running
            table.add_row(Text(backend), str(done), str(running), str(left), Text(str(failed), style=style))
        return table

    def _say(self) -> None:
        self._told = time.monotonic()
        self._console.print(Text(f"pvops: {self.line}"))
