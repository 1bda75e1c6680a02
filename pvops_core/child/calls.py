"""One function called in a process of its own."""

from __future__ import annotations

import base64
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from pvops_core.child.serving import lines_of_parent, take_stdout, tell_of_faults
from pvops_core.child.supervised import Child, ChildLostError, Loss, finish, python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pvops_core.child.limits import Limits

T = TypeVar("T")


def call_apart(function: Callable[..., T], *arguments: object, limits: Limits) -> T:
    """What a function gives, called in a child process whose standard error is this process's.

    Args:
        function: one of a module's own, which the child imports from where this process does.
        arguments: plain data; so is what it gives.
        limits: what the process may take.

    Raises:
        ChildLostError: the process did not come to an answer.
    """
    answer = finish(_answer(_packed((function, arguments)), limits))
    given: T = _unpacked(answer)
    return given


async def _answer(request: bytes, limits: Limits) -> bytes:
    child = Child(python(f"{__name__}:serve"), heard=True)
    try:
        await child.start(limits.output)
        await child.say(request)
        return await child.within(limits, child.answer())
    except OSError as error:
        raise ChildLostError(Loss.DIED, f"it could not be started: {error}") from error
    finally:
        await child.end()


def serve() -> None:
    """The child: one call."""
    send, lines = take_stdout(), lines_of_parent()
    function, arguments = _unpacked(next(lines))
    tell_of_faults()
    threading.Thread(target=_leave, args=(lines,), daemon=True).start()
    send(_packed(function(*arguments)))
    os._exit(0)  # what a plugin does at exit is no part of the call


def _leave(lines: Iterator[bytes]) -> None:
    """End the process with its parent, who says nothing more but holds the other end of the pipe while he lives."""
    for _line in lines:
        pass
    os._exit(1)


def _packed(data: object) -> bytes:
    return base64.b64encode(pickle.dumps(data)) + b"\n"


def _unpacked(line: bytes) -> Any:  # noqa: ANN401 - whatever was packed
    return pickle.loads(base64.b64decode(line))  # noqa: S301 - between us and our own child
