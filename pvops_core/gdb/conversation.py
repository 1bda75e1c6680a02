"""One debugger, from when it comes until it goes: what it says is answered while the guest stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.gdb.dialogue import SIGINT, Dialogue, Leave, Resume
from pvops_core.gdb.packets import Sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.gdb.connection import GdbConnection
    from pvops_core.gdb.stopplaces import Hit
    from pvops_core.gdb.target import GdbTarget


class Conversation:
    """What is said.

    Args:
        connection: to the debugger.
        target: what it is about.

    Attributes:
        connection: the same.
        thread: the thread that stopped last.
        begun: a packet has been answered.
    """

    def __init__(self, connection: GdbConnection, target: GdbTarget) -> None:
        self.connection = connection
        self.thread = 1
        self.begun = False
        self._dialogue = Dialogue(target)
        self._awaited = False  # the debugger has let the guest go on, and waits to hear of its stop

    def stand(self, signal: int, hit: Hit | None, listen: Callable[[], object]) -> Resume | Leave:
        """The guest has stopped: answer until it is to go on.

        Args:
            signal: why, as debuggers have it.
            hit: where.
            listen: waits until there is something to be received, and receives it.

        Raises:
            GoneError: the debugger has gone.
        """
        while True:
            told = self._dialogue.stopped(signal, self.thread, hit)
            if self._awaited:
                self.connection.reply(told)
            order = self._order(listen)
            self._awaited = isinstance(order, Resume)
            if not (self._awaited and self.interrupted()):
                return order
            signal, hit = SIGINT, None

    def interrupted(self) -> bool:
        """Whether the debugger wants the guest to stop: all else that it says while that runs is out of turn."""
        return Sign.INTERRUPT in list(iter(self.connection.next, None))

    def _order(self, listen: Callable[[], object]) -> Resume | Leave:
        while True:
            token = self.connection.next()
            if token is None:
                listen()
            elif isinstance(token, bytes):
                if (order := self._answer(token)) is not None:
                    return order
            elif token is Sign.NAK:
                self.connection.repeat()
            elif token is Sign.BROKEN and self._dialogue.acknowledges:
                self.connection.acknowledge(sound=False)

    def _answer(self, packet: bytes) -> Resume | Leave | None:
        if self._dialogue.acknowledges:
            self.connection.acknowledge(sound=True)
        self.begun = True
        answer = self._dialogue.answer(packet)
        if isinstance(answer, Resume):
            return answer
        for payload in answer.replies if isinstance(answer, Leave) else answer:
            self.connection.reply(payload)
        return answer if isinstance(answer, Leave) else None
