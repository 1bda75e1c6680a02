"""What a person at a raw terminal sees: the guest's bytes and, until there are some, how far it has come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TextIO

import attrs

from pvops_core.runs.wire import Progress, WorkerPhase

if TYPE_CHECKING:
    from pvops_core.backends.keyboard import Stroke
    from pvops_core.runs.cell import Cell
    from pvops_core.runs.observation import Observation

_ERASE: Final = "\r\x1b[K"


@attrs.define(eq=False)
class Screen:
    """Shows the run of one guest.

    Attributes:
        text: where it is shown.
        vcpus: how many the guest may start.
        gone: told when nothing can be shown any more.
    """

    text: TextIO
    vcpus: int
    gone: Callable[[], None]
    _status: str = attrs.field(default="", init=False)
    _quiet: bool = attrs.field(default=True, init=False)

    def started(self, cell: Cell) -> None:
        """Nothing to say yet."""

    def console(self, cell: Cell, text: str) -> None:
        """Show what the guest printed now, every byte as it is."""
        del cell
        self._erase()
        self._quiet = False
        with self._there():
            self.text.flush()
            buffer = getattr(self.text, "buffer", None)
            if buffer is None:
                self.text.write(text)
            else:
                buffer.write(text.encode("utf-8", "surrogateescape"))
            self.text.flush()

    def finished(self, observation: Observation) -> None:
        """The summary follows on a line of its own."""
        self.leave()
        if observation.console and not observation.console.endswith("\n"):
            self.say("")

    def leave(self) -> None:
        """Nothing more is told of how far the guest has come."""
        self._erase()
        self._quiet = False

    def say(self, line: str) -> None:
        """Show a line of pvops' own."""
        self._erase()
        with self._there():
            self.text.write(f"{line}\n")
            self.text.flush()

    def told(self, what: WorkerPhase | Progress | Stroke) -> None:
        """Show how far a guest has come that has not printed anything."""
        if not self._quiet or not self.text.isatty():
            return
        match what:
            case WorkerPhase():
                self._show(what.value)
            case Progress():
                phase = f"after {what.point}" if what.point else "before start_kernel"
                self._show(f"{what.ns / 1e9:.2f} s of virtual time, {phase}, {what.vcpus} of {self.vcpus} vCPUs")

    def _show(self, status: str) -> None:
        if status != self._status:
            self._status = status
            with self._there():
                self.text.write(f"{_ERASE}pvops: {status} (Ctrl-A h helps)")
                self.text.flush()

    def _erase(self) -> None:
        if self._status:
            self._status = ""
            with self._there():
                self.text.write(_ERASE)
                self.text.flush()

    @contextlib.contextmanager
    def _there(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # the terminal was closed; the run ends and is told of otherwise
            self.gone()
