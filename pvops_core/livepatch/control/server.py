"""A socket by which a running machine's live patches are worked with from outside.

A connection is one request and one reply, a JSON document a line each. Threads only read and write; what is asked for
is done between two slices of the machine, and noted in its event log with the virtual time at which it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import queue
import shlex
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import attrs

from pvops_core import records
from pvops_core.errors import UsageError
from pvops_core.livepatch.control.findings import VerbReply, VerbRequest
from pvops_core.livepatch.control.report import LivepatchReport, payloads
from pvops_core.livepatch.control.tool import FAILED, Tool, check_words
from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.payload.model import MAX_SIZE
from pvops_core.machine.run.eventkinds import event_kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pvops_core.livepatch.control.manager import Livepatch
    from pvops_core.livepatch.control.tool import Verb

_LIVEPATCH: Final = event_kind(
    "livepatch",
    "Somebody outside asked for something by the socket.",
    what="str: request",
    words="str: the command line",
    sha256="str: hashes of the files that came with it",
)

LINE_LIMIT = 4 * MAX_SIZE
"""Most bytes of a request: a payload too long by far is still refused by name, not by this."""
ROOT = 0
"""The user who may do everything."""
SECONDS = 10
"""How long a request may take to arrive."""
_ENDED: Final = VerbReply(FAILED, error="the machine has ended")
_PIECE = 1 << 16
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED}
"""What accept() may fail with though the socket is sound (accept(2))."""
_PAUSE = 0.05
"""Seconds before the next try: descriptors are freed by others."""
_CREDENTIALS = struct.Struct("3i")


@attrs.define(eq=False)
class QueuedCommand:
    """A request on its way.

    Attributes:
        words: the command.
        files: what its files hold.
        reply: gets the document that answers it, when it is done.
    """

    words: Sequence[str]
    files: Mapping[str, bytes]
    reply: queue.SimpleQueue[VerbReply] = attrs.field(factory=queue.SimpleQueue)


class Server:
    """Listens for one machine; a context manager, closing it takes the socket away.

    Args:
        path: of the socket, which must not be there, or be one that nobody listens at.
        livepatch: the machine's live patches.
        report: where what is done is kept.
        owner: numeric id of the one user beside root who may ask for anything.

    Raises:
        UsageError: the socket cannot be made.
    """

    def __init__(self, path: Path, livepatch: Livepatch, report: LivepatchReport, owner: int | None = None) -> None:
        self._livepatch = livepatch
        self._machine = livepatch.guest.machine
        self._report = report
        # Tests pass another owner; the user of a machine is who started it.
        self._owner = os.geteuid() if owner is None else owner
        self._asked: queue.SimpleQueue[QueuedCommand] = queue.SimpleQueue()
        self._over = threading.Event()
        self._present: tuple[QueuedCommand, Verb] | None = None
        self._path = path
        self._socket = _listen(path)
        # Daemon: a run that ends must not wait for somebody who keeps a connection open.
        threading.Thread(target=self._accept, daemon=True).start()
        self._machine.watch(self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; whoever still waits is told."""
        self._machine.unwatch(self._look)
        # Before the socket is closed, so that a thread that is waiting sees why.
        self._over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        self._socket.close()
        self._path.unlink(missing_ok=True)
        # Nobody may wait for ever for a machine that has ended.
        if self._present is not None:
            self._present[0].reply.put(_ENDED)
        self._send_away()

    def _send_away(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._asked.get_nowait().reply.put(_ENDED)

    # The machine's side ------------------------------------------------------------------------------------------

    def _look(self) -> int | None:
        """Between two slices: go on with the present request, or begin the next."""
        while True:
            if self._present is None:
                # empty() is reliable here: only this thread takes from the queue.
                if self._asked.empty():
                    return None
                self._begin(self._asked.get())
                continue
            asked, verb = self._present
            try:
                # A verb that waits for virtual time lets the machine run.
                return next(verb)
            except StopIteration as over:
                self._present = None
                self._answer(asked, over.value)

    def _begin(self, asked: QueuedCommand) -> None:
        hashes = ",".join(hashlib.sha256(data).hexdigest() for data in asked.files.values())
        # Noted with hashes: a run can be replayed only with the same files.
        self._machine.log.record(_LIVEPATCH, what="request", words=shlex.join(asked.words), sha256=hashes)
        tool = Tool(self._livepatch, asked.files.__getitem__, self._report.say)
        self._present = asked, tool.run(asked.words)

    def _answer(self, asked: QueuedCommand, code: int) -> None:
        lines = self._report.done(asked.words, code)
        asked.reply.put(VerbReply(code, tuple(lines), self._machine.clock.ns, payloads(self._livepatch)))

    # The threads' side -------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError as failure:
                # Anything else means that the socket was closed; a pause for what may pass.
                if failure.errno not in _PASSING or self._over.wait(_PAUSE):
                    return
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            # A peer that sends nothing must not hold a thread for ever.
            connection.settimeout(SECONDS)
            try:
                self._allow(connection)
                asked = _read(connection)
            except (UsageError, LivepatchError) as error:
                reply = VerbReply(FAILED, error=str(error))
            else:
                self._asked.put(asked)
                # close() may have emptied the queue between: then nobody else would answer.
                if self._over.is_set():
                    self._send_away()
                reply = asked.reply.get()
            connection.sendall(records.line(reply))
            _hang_up(connection)

    def _allow(self, connection: socket.socket) -> None:
        # The kernel's word, not the peer's (unix(7)).
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(raw)
        if user not in {ROOT, self._owner}:
            raise LivepatchError(f"user {user} may not live-patch this machine", errno=errno.EPERM)


def _listen(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Somebody may be listening there: only a socket that nobody answers is removed.
        if path.is_socket() and made.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()  # left behind by a machine that was killed
            made.close()
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Mode 0600 from the start: between bind() and a chmod() anybody could connect.
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen()
    except OSError as failure:
        made.close()
        raise UsageError(f"{path}: no socket can be made: {failure.strerror or failure}") from failure
    return made


def _hang_up(connection: socket.socket) -> None:
    """Close after what the other still sends: a socket closed with bytes unread is reset, and the reply lost."""
    connection.shutdown(socket.SHUT_WR)
    # Bounded: a peer that never stops must not keep the thread.
    for _ in range(0, LINE_LIMIT, _PIECE):
        if not connection.recv(_PIECE):
            return


def _read(connection: socket.socket) -> QueuedCommand:
    """A request; UsageError for what is none."""
    line = bytearray()
    try:
        # recv() gives any part of a line.
        while not line.endswith(b"\n"):
            piece = connection.recv(_PIECE)
            line += piece
            if not piece or len(line) > LINE_LIMIT:
                raise UsageError("not one line of a request")
        request = records.read(bytes(line), VerbRequest)
    except TimeoutError as late:
        raise UsageError(f"no whole request in {SECONDS} seconds") from late
    except (ValueError, RecursionError) as failure:
        raise UsageError(f"not a request: {failure}") from failure
    # Refused here, before the machine is asked to stop for it.
    verb, arguments, _ = check_words(request.words)
    if verb in {"upload", "load"} and arguments[-1] not in request.files:
        raise UsageError(f"the request lacks the bytes of {arguments[-1]}")
    return QueuedCommand(request.words, request.files)
