"""Shows on a terminal how far the cells have come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from pvops_core.runs.cell import Cell
    from pvops_core.runs.observation import Observation


class ProgressListener:
    """A listener with one line on standard error, if that is a terminal; a context manager."""

    def __init__(self, cells: int, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._running: dict[Cell, None] = {}
        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=cells)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def started(self, cell: Cell) -> None:
        """Name the cell."""
        self._running[cell] = None
        self._describe()

    def console(self, cell: Cell, text: str) -> None:
        """Guests' output is not shown here."""

    def finished(self, observation: Observation) -> None:
        """Count the cell."""
        del self._running[observation.cell]
        self._describe()
        self._progress.advance(self._task)

    def _describe(self) -> None:
        self._progress.update(self._task, description=", ".join(cell.title for cell in self._running))
