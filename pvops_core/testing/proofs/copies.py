"""A function called in a copy of this process, which is gone afterwards with all that it did to guest and hooks.

A snapshot of everything costs least so: the host copies the pages that are written, and no others.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import warnings
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from pvops_core.errors import MachineError, PvopsError

_AT_ONCE: Final = 1 << 20
T = TypeVar("T")


def in_a_copy(work: Callable[[], T], *, seconds: float) -> T:
    """What a function gives that is called in a copy of this process.

    Args:
        work: the function; what it gives can be pickled.
        seconds: wall time that it may take before it answers.

    Raises:
        MachineError: it raised something, the copy has died, or it has taken too long.
    """
    ours, its = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads here: the copy needs none of them
        pid = os.fork()
    if not pid:
        os.close(ours)
        _live(work, its)
    os.close(its)
    try:
        data = _read(ours, seconds)
    finally:
        os.close(ours)
        os.kill(pid, signal.SIGKILL)  # it has answered, or never will
        os.waitpid(pid, 0)
    if not data:
        raise MachineError(f"a copy of the machine has died, or has not answered in {seconds:g} s")
    made, result = pickle.loads(data)  # noqa: S301 - of a copy of this very process
    if not made:
        raise MachineError(result)
    return result  # type: ignore[no-any-return]  # what work gives


def _live(work: Callable[[], object], out: int) -> NoReturn:
    """The life of a copy."""
    try:
        try:
            answer = True, work()
        except PvopsError as error:
            answer = False, str(error)
        except Exception as error:  # noqa: BLE001 - of a plugin's code: its text is the answer
            answer = False, f"{type(error).__name__}: {error}"
        left = memoryview(pickle.dumps(answer))
        while left:
            left = left[os.write(out, left) :]
    finally:
        os._exit(0)


def _read(pipe: int, seconds: float) -> bytes:
    """All that is written to a pipe until its other end is closed; nothing where so long nothing comes."""
    found = bytearray()
    while select.select([pipe], [], [], seconds)[0]:
        piece = os.read(pipe, _AT_ONCE)
        if not piece:
            return bytes(found)
        found += piece
    return b""
