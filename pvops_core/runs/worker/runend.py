"""How a run ended, from what the machine or an exception said."""

from __future__ import annotations

import traceback
from bdb import BdbQuit
from typing import TYPE_CHECKING, Self

import attrs

from pvops_core.backends.blame import sentence
from pvops_core.errors import HookError, PvopsError, clean
from pvops_core.runs.observation import Outcome

if TYPE_CHECKING:
    from pvops_core.machine import Stop

ENDS = {
    "poweroff": Outcome.POWEROFF,
    "reboot": Outcome.REBOOT,
    "halted": Outcome.HALTED,
    "crash": Outcome.CRASH,
    "timeout": Outcome.TIMEOUT,
    "until": Outcome.UNTIL,
    "ended": Outcome.ENDED,
}


@attrs.frozen
class RunEnd:
    """How a run ended, and why: in a line and, if there is more to say, in many; the exception, if one was raised."""

    outcome: Outcome
    reason: str
    detail: str = ""
    error: BaseException | None = None

    @classmethod
    def of_stop(cls, stop: Stop) -> RunEnd:
        """The end that a machine's run came to; a reason that is not known here is a crash."""
        outcome = ENDS.get(stop.reason)
        if outcome is None:
            return cls(Outcome.CRASH, f"{stop.reason}: {stop.detail}" if stop.detail else stop.reason)
        return cls(outcome, stop.detail)

    @classmethod
    def of_crash(cls, reason: str, detail: str = "") -> RunEnd:
        """The end of a guest that failed."""
        return cls(Outcome.CRASH, reason, detail)

    @classmethod
    def of_error(cls, error: BaseException) -> RunEnd:
        """The end that an exception makes, with the traceback of what nobody raised on purpose."""
        if isinstance(error, HookError):
            return cls(Outcome.ERROR, sentence(error), error.frames, error)
        if isinstance(error, BdbQuit):
            return cls(Outcome.ERROR, "it was left in the debugger")
        unforeseen = error.__cause__ if isinstance(error, PvopsError) else error
        trace = "".join(traceback.format_exception(unforeseen)) if unforeseen else ""
        return cls(Outcome.ERROR, sentence(error), clean(trace), error)

    def with_fault(self, fault: str) -> Self:
        """Of a guest that crashed: what its hook ran into last, which may be why."""
        return attrs.evolve(self, detail=fault) if fault and self.outcome is Outcome.CRASH else self
