"""A child's own side: a pipe for its answers that nothing else writes to, and what its parent says."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TELL_WHERE: Final = signal.SIGUSR1
"""A child that gets this signal writes the frames it is in."""


def take_stdout(*, forks: bool = False) -> Callable[[bytes], None]:
    """Keep standard output for whole lines of answers; what others print from now on goes to standard error.

    Args:
        forks: processes that are forked of this one may answer in its stead, and are no plugin's.
    """
    pipe, own, lock = os.fdopen(os.dup(1), "wb"), os.getpid(), threading.Lock()
    # What C code writes to the descriptor goes there too, and not only what Python prints.
    os.dup2(2, 1)

    def send(line: bytes) -> None:
        with lock:
            if forks or os.getpid() == own:
                pipe.write(line)
                pipe.flush()

    return send


def tell_of_faults() -> None:
    """Have the frames that this process is in written to standard error, should it crash or be asked for them."""
    faulthandler.enable()
    faulthandler.register(TELL_WHERE, all_threads=False)


def lines_of_parent() -> Iterator[bytes]:
    """Lines of standard input. Reads below Python's buffers, which a thread may not hold at exit."""
    rest = b""
    while block := os.read(0, 1 << 16):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
