"""Lets a session's guest run and stand as a debugger wants, which comes and goes as it likes.

All happens in the thread that runs the guest, between two runs of it. The guest ends as if nobody had looked.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, Self

from pvops_core.gdb.connection import Doorbell, GdbConnection, GoneError, listen, waited
from pvops_core.gdb.conversation import Conversation
from pvops_core.gdb.dialogue import SIGABRT, SIGINT, SIGTRAP, Leave, Resume
from pvops_core.gdb.target import GdbTarget
from pvops_core.machine import Stop

if TYPE_CHECKING:
    from pvops_core.gdb.orders import DebugOrders
    from pvops_core.gdb.stopplaces import Hit
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session

_COMES_OUT: Final = frozenset({"paused", "stepped"})
_FAILED: Final = frozenset({"crash", "dead"})
Go = Callable[[Collection["Vcpu"]], Stop]
"""Runs the session to its end, a pause, or a step of one of some vCPUs."""


class Debugger:
    """A context manager: as long as it is entered, a debugger may come.

    Args:
        session: whose guest it is about.
        orders: where to listen.
        say: is given lines for the user.
        standing: told when the guest stands for a debugger (True), and when it goes on.

    Raises:
        UsageError: nobody can listen there.
    """

    def __init__(
        self, session: Session, orders: DebugOrders, say: Callable[[str], None], standing: Callable[[bool], None]
    ) -> None:
        self._machine = session.machine
        self._target = GdbTarget(session)
        self._say, self._standing = say, standing
        self._wait = orders.wait
        self._listener = listen(orders)
        host, port = self._listener.getsockname()[:2]
        self.place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._talk: Conversation | None = None
        self._bell = Doorbell(lambda: self._machine.pause(at_once=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bell.close()
        self._hang_up(b"X%02x" % SIGABRT)
        self._listener.close()

    def run(self, go: Go) -> Stop:
        """Run the session to its end, with all stops that a debugger makes on the way; whatever ``go`` raises."""
        what = "the guest waits for a debugger" if self._wait else "a debugger may come"
        self._say(f"{what}: gdb -ex 'target remote {self.place}'")
        order = self._await() if self._wait else None
        while not (isinstance(order, Leave) and order.killing):
            resume = order if isinstance(order, Resume) else None
            stop = self._run(go, resume)
            if stop.reason not in _COMES_OUT:
                return self._end(stop)
            order = self._look(stop, resume)
        return Stop("ended", "the debugger has ended it")

    # The guest runs -----------------------------------------------------------------------------------------------

    def _run(self, go: Go, resume: Resume | None) -> Stop:
        places, vcpus = self._target.places, self._machine.vcpus
        stepping = [vcpus[thread - 1] for thread in sorted(resume.stepping)] if resume else []
        moving = resume.stepping | resume.going if resume else frozenset(self._target.threads)
        kept = [vcpu for vcpu in vcpus if vcpu.index + 1 not in moving and not vcpu.held]
        places.arm(stepping=bool(stepping))
        before = [vcpu.rip for vcpu in stepping]
        self._bell.arm(*self._ears)
        for vcpu in kept:
            vcpu.hold()
        try:
            stop = go(stepping)
        finally:
            for vcpu in kept:
                vcpu.release()
            self._bell.arm()
        moved = [vcpu for vcpu, rip in zip(stepping, before, strict=True) if vcpu.rip != rip]
        if self._talk and (stepping or places.hits):
            first = places.hits[0].vcpu if places.hits else (moved or stepping)[0].index
            self._talk.thread = first + 1
        # Nothing can wake those that were let run alone: no end of a guest whose others wait for the debugger.
        return Stop("stepped") if kept and stop.reason == "dead" else stop

    def _look(self, stop: Stop, resume: Resume | None) -> Resume | Leave | None:
        """The guest has come out of its run: what it is to do next; None: to run, and nobody waits for its stop."""
        hits = self._target.places.hits
        if hits or stop.reason == "stepped":
            hit = hits[0] if hits else None
            hits.clear()
            return self._stand(SIGTRAP, hit)
        try:
            if self._hear(seconds=0):
                return self._stand(SIGTRAP)
        except GoneError:
            return self._lost()
        return self._stand(SIGINT) if self._talk and self._talk.interrupted() else resume

    # The guest stands ---------------------------------------------------------------------------------------------

    def _stand(self, signal: int, hit: Hit | None = None) -> Resume | Leave | None:
        """Answer the debugger until the guest is to go on; None where nobody waits for its next stop."""
        if self._talk is None:
            return None
        self._standing(True)  # noqa: FBT003 - what is so
        try:
            order = self._talk.stand(signal, hit, self._hear)
        except GoneError:
            return self._lost()
        finally:
            self._standing(False)  # noqa: FBT003 - likewise
        if isinstance(order, Leave):
            self._say("the debugger ends the run" if order.killing else "the debugger has left; the guest goes on")
            self._hang_up()
        return order

    def _await(self) -> Resume | Leave | None:
        """Wait for a debugger that says something."""
        while True:
            self._standing(True)  # noqa: FBT003 - what is so
            while self._talk is None:
                self._hear()
            talk = self._talk
            order = self._stand(SIGTRAP)
            if order is not None or talk.begun:
                return order

    @property
    def _ears(self) -> tuple[socket.socket, ...]:
        return (self._listener, self._talk.connection.socket) if self._talk else (self._listener,)

    def _hear(self, seconds: float | None = None) -> bool:
        """Wait for somebody to come or to say something; whether it is a debugger that is new.

        Raises:
            GoneError: the debugger has gone.
        """
        new = False
        for ready in waited(*self._ears, seconds=seconds):
            if ready is self._listener:
                new = self._let_in()
            elif self._talk:
                self._talk.connection.receive()
        return new

    def _let_in(self) -> bool:
        """Somebody has come: the debugger from now on, unless there is one."""
        with contextlib.suppress(OSError):  # gone again
            connected, _ = self._listener.accept()
            if self._talk is None:
                self._talk = Conversation(GdbConnection(connected), self._target)
                return True
            connected.close()
        return False

    # The debugger or the guest is no more -------------------------------------------------------------------------

    def _lost(self) -> Resume | Leave | None:
        self._say("the debugger has gone; the guest goes on")
        self._hang_up()
        return None

    def _hang_up(self, last: bytes = b"") -> None:
        talk, self._talk = self._talk, None
        if talk is not None:
            with contextlib.suppress(GoneError):
                if last:
                    talk.connection.reply(last)
            talk.connection.close()
            self._target.places.clear()

    def _end(self, stop: Stop) -> Stop:
        """The guest has come to its end; one that has failed can be looked at first."""
        failed = stop.reason in _FAILED
        if failed:
            self._stand(SIGABRT)
        self._hang_up(b"X%02x" % SIGABRT if failed else b"W00")
        return stop
