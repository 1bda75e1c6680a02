"""Passes on what a guest prints while it runs."""

from __future__ import annotations

import codecs
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL_S = 0.05
_WAITING_S = 0.01
"""The same where a person waits for each key to be answered."""
_SILENCE_S = 0.2
"""From one word on a silent guest to the next."""


class ConsoleStream:
    """While entered, sends new console text on from a thread; the run itself knows nothing of it.

    Reading a buffer that only grows leaves the run as it was, so streaming cannot change its event log.

    Args:
        console: what the guest has printed, and what it will.
        send: told of new text.
        sent: bytes of it that are not new.
        silent: called now and then for as long as nothing was sent, if somebody waits for that. Bytes that are no
            UTF-8 then come as surrogates, of which a terminal can be given the bytes.
    """

    def __init__(
        self,
        console: bytearray,
        send: Callable[[str], None],
        sent: int = 0,
        silent: Callable[[], None] | None = None,
    ) -> None:
        self._console = console
        self._silent = silent
        self._send = send
        self._sent = self._first = sent
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape" if silent else "replace")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._flush(final=True)

    def _follow(self) -> None:
        while not self._over.wait(_POLL_S if self._silent is None else _WAITING_S):
            self._flush(final=False)
            if self._silent is not None and self._sent == self._first:
                self._silent()
                self._over.wait(_SILENCE_S)

    def _flush(self, *, final: bool) -> None:
        fresh = bytes(self._console[self._sent :])
        self._sent += len(fresh)
        if text := self._decoder.decode(fresh, final):
            self._send(text)
