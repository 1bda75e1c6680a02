"""The worker's end of the pipe from its parent: the request, what is typed, and the sign that the parent has gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pvops_core.records import read
from pvops_core.runs import wire

if TYPE_CHECKING:
    from pvops_core.backends.keyboard import Keyboard


def listen(lines: Iterator[bytes], keyboard: Keyboard) -> None:
    """Put what the parent says was typed on the keyboard; when the parent says no more, end the process at once.

    The parent holds the other end open for as long as it lives; so this works even when the parent was killed.
    To be run in a thread of its own.
    """
    try:
        for line in lines:
            said = read(line, wire.Typed)
            if said.typed:
                keyboard.listen()  # a pipe that nobody ever writes to is nobody to wait for
                keyboard.type(said.typed)
            if said.leaving:
                keyboard.leave(said.leaving)
            elif said.asking:
                keyboard.ask()
            elif not said.typed:
                keyboard.end()
    finally:
        os._exit(1)
