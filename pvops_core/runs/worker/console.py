"""Passes on what a guest prints while it runs."""

from __future__ import annotations

import codecs
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_POLL_S = 0.05


class ConsoleStream:
    """While entered, sends new console text on from a thread; the run itself knows nothing of it.

    Reading a buffer that only grows leaves the run as it was, so streaming cannot change its event log.

    Args:
        console: what the guest has printed, and what it will.
        send: told of new text.
        sent: bytes of it that are not new.
    """

    def __init__(self, console: bytearray, send: Callable[[str], None], sent: int = 0) -> None:
        self._console = console
        self._send = send
        self._sent = sent
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._flush(final=True)

    def _follow(self) -> None:
        while not self._over.wait(_POLL_S):
            self._flush(final=False)

    def _flush(self, *, final: bool) -> None:
        fresh = bytes(self._console[self._sent :])
        self._sent += len(fresh)
        if text := self._decoder.decode(fresh, final):
            self._send(text)
