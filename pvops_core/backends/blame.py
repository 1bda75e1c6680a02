"""Whose fault an exception is, and what its author is shown of it: the sentence, and the frames of the author's own."""

from __future__ import annotations

import dis
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Final

from pvops_core.child.marks import FOR_NONE, marks
from pvops_core.errors import HookError, PvopsError, clean

if TYPE_CHECKING:
    from pvops_core.backends.finding.found import Found

_ROOMS: Final = f"{Path(__file__).parents[1]}/"
_CARRIERS: Final = frozenset({"unicorn", "pluggy", "ctypes", "_pytest", "bdb", "contextlib"})
"""Packages that stand between a hook and those who call it, or that it calls; nobody looks for a fault there."""
_MOST: Final = 8
"""Frames that are shown; of more, as of an endless recursion, the first and the last."""
_RAISE: Final = dis.opmap["RAISE_VARARGS"]


def sentence(error: BaseException) -> str:
    """What an exception says, even one that cannot: ``ValueError: no such index``."""
    try:
        text = str(error)
    except BaseException as failure:  # noqa: BLE001  its own __str__ is somebody's code too
        text = f"(its __str__ raised {type(failure).__name__}, so that it cannot say what it is)"
    return clean(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def handlers() -> frozenset[CodeType]:
    """The code of the process's handlers of signals."""
    found = (getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals())
    return frozenset(code for code in found if code is not None)


def from_outside(error: BaseException, ours: frozenset[CodeType] | None = None) -> bool:
    """Whether an exception only came by: a signal's, a debugger's that was left, a test framework's verdict.

    Those go on to whoever waits for them; all others are of the code that they come out of.

    Args:
        error: the exception.
        ours: code of signal handlers; those there are now unless given.
    """
    if type(error).__module__.partition(".")[0] in {"_pytest", "bdb"}:
        return True
    known = handlers() if ours is None else ours
    if any(frame.f_code in known for frame, _line in traceback.walk_tb(error.__traceback__)):
        return True
    return isinstance(error, KeyboardInterrupt) and not _raised_by_hand(error.__traceback__)


def _raised_by_hand(trace: TracebackType | None) -> bool:
    """By a ``raise`` statement, and not by Python's own handler of SIGINT between two instructions."""
    *_, last = (None, *_entries(trace))
    # tb_lasti is the instruction that raised; where a signal's handler did, whatever was under way.
    return last is not None and last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE


def own(frame: FrameType) -> bool:
    """Whether a frame is of an author's code, and not of ours or of a library that carries calls."""
    file, name = frame.f_code.co_filename, frame.f_globals.get("__name__", "")
    return not file.startswith((_ROOMS, "<frozen", "<attrs")) and name.partition(".")[0] not in _CARRIERS


def own_trace(error: BaseException) -> str:
    """The traceback of an exception and of its causes, with the author's own frames alone; empty if it has none."""
    if not any(own(frame) for frame, _line in traceback.walk_tb(error.__traceback__)):
        return ""
    return clean("".join(_traces(error, set()))).rstrip("\n")


def own_stack(text: str) -> str:
    """A stack that faulthandler wrote, with the author's own frames alone if there are some."""
    lines = text.splitlines()
    ours = [line.startswith(('  File "<frozen', f'  File "{_ROOMS}')) for line in lines]
    left = [line for line, our in zip(lines, ours, strict=True) if not our]
    return "\n".join(left) if any(line.startswith('  File "') for line in left) else text


def hide_ours(error: BaseException) -> None:
    """Take frames of ours out of the tracebacks of an exception and its causes, as far as anything is left.

    A HookError goes on into the hook's own frames, so that one traceback leads from whoever called to the fault. Where
    an exception is none of ours the frame that raised it stays: it may be our fault.
    """
    seen: set[int] = set()
    before: BaseException | None = error
    while before is not None and id(before) not in seen:
        seen.add(id(before))
        kept = _kept(before)
        if isinstance(before, HookError) and (cause := before.__cause__) is not None:
            kept += _kept(cause)
            # As Python shows it: the explicit cause, else the context unless `from None` hides that.
            before.__cause__ = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if any(own(each.tb_frame) for each in kept):
            trace, half = None, _MOST // 2
            # A traceback is linked from the outermost frame on, so it is made from its end.
            for each in reversed(kept if len(kept) <= _MOST else [*kept[:half], *kept[-half:]]):
                trace = TracebackType(trace, each.tb_frame, each.tb_lasti, each.tb_lineno)
            before.__traceback__ = trace
        before = before.__cause__ or before.__context__


def _kept(error: BaseException) -> list[TracebackType]:
    entries = list(_entries(error.__traceback__))
    ours = isinstance(error, PvopsError) or type(error).__module__.startswith("pvops_core.")
    return [each for each in entries if own(each.tb_frame) or (each is entries[-1] and not ours)]


def _entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _traces(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _traces(before, seen)
        link = "which was the direct cause of" if error.__cause__ else "while it was dealt with came"
        yield f"{link}\n"
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if own(frame)]
    yield from _lines(frames)
    yield f"{sentence(error)}\n"
    yield from (f"{clean(str(note))}\n" for note in getattr(error, "__notes__", ()))


def _lines(frames: list[tuple[FrameType, int]]) -> Iterator[str]:
    half = _MOST // 2
    left = len(frames) - _MOST
    first, last = (frames[:half], frames[-half:]) if left > 0 else (frames, [])
    yield from traceback.format_list(traceback.StackSummary.extract(iter(first)))
    if last:
        yield f"  … {left} more frames …\n"
        yield from traceback.format_list(traceback.StackSummary.extract(iter(last)))


@contextmanager
def blamed(source: Found | None, what: str, *, hook: str = "", about: str = "") -> Iterator[None]:
    """Run somebody's code: what it lets out that is no error of ours is a HookError that names the plugin.

    Args:
        source: where the plugin is from; None for code from outside of any.
        what: what is done, for the sentence: ``its platform``, say.
        hook: the hook whose code it is, if it is one's.
        about: what follows the sentence.
    """
    try:
        yield
    except PvopsError:
        raise
    except BaseException as error:
        if from_outside(error):
            raise
        message = f"{what} raised {sentence(error)}{about}"
        raise of_source(source, message, hook=hook, frames=own_trace(error)) from error


@contextmanager
def making(source: Found | None, what: str) -> Iterator[None]:
    """As :func:`blamed`, of what is made once for a run: should the process end in it, that is told as well.

    Args:
        source: where the plugin is from; None for code from outside of any.
        what: what is done.
    """
    under_way, mark = marks().bytes, marks().number(f"{what} ({of_source(source, '').where()})")
    under_way[mark] = FOR_NONE
    try:
        with blamed(source, what):
            yield
    finally:
        under_way[mark] = 0


def of_source(source: Found | None, message: str, *, hook: str = "", frames: str = "") -> HookError:
    """An error of a plugin's code, with the names of the plugin."""
    names = (source.distribution, source.version, source.entry_point) if source else ("", "", "")
    return HookError(message, *names, hook, frames=frames)
