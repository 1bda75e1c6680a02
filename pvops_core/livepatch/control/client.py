"""Asks a running machine to do something with its live patches: the other end of ``server``."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from pvops_core.errors import PvopsError


@attrs.define(eq=False)
class NoAnswerError(PvopsError):
    """Nobody answers at a socket, or not as a machine does."""


def ask(path: Path, words: Sequence[str], files: Mapping[str, bytes]) -> dict[str, Any]:
    """Do a command; waits until it is done.

    Args:
        path: the machine's socket.
        words: the command.
        files: bytes of the files that it names.

    Returns:
        ``exit``, ``lines``, virtual time ``ns`` at the end, and ``payloads``; or ``exit`` and ``error``.

    Raises:
        NoAnswerError: there is no machine.
    """
    request = {"words": list(words), "files": {name: base64.b64encode(data).decode() for name, data in files.items()}}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        reply: dict[str, Any] = json.loads(line)
        reply["exit"] = int(reply["exit"])
    except (OSError, ValueError, TypeError, KeyError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it has ended, or is none"
        raise NoAnswerError(f"{path}: no machine answers: {reason}") from failure
    return reply
