"""Asks a running machine to do something with its live patches: the other end of ``server``."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from pvops_core import records
from pvops_core.errors import PvopsError
from pvops_core.livepatch.control.findings import VerbReply, VerbRequest


@attrs.define(eq=False)
class NoAnswerError(PvopsError):
    """Nobody answers at a socket, or not as a machine does."""


def ask(path: Path, words: Sequence[str], files: Mapping[str, bytes]) -> VerbReply:
    """Do a command; waits until it is done.

    Args:
        path: the machine's socket.
        words: the command.
        files: bytes of the files that it names.

    Raises:
        NoAnswerError: there is no machine.
    """
    request = VerbRequest(tuple(words), files)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            # A line each way, so the answer's end is told without a length.
            connection.sendall(records.line(request))
            with connection.makefile("rb") as stream:
                return records.read(stream.readline(), VerbReply)
    except (OSError, ValueError, RecursionError) as failure:
        # A reply that cannot be read is as good as none: the other end is no machine of ours, or died in the middle.
        reason = failure.strerror if isinstance(failure, OSError) else "it has ended, or is none"
        raise NoAnswerError(f"{path}: no machine answers: {reason}") from failure
